"""Distances to the grid against a search in float64, and planted ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model


def assert_distances(metrics: dict[str, float], distances: dict[str, np.ndarray]) -> None:
    for name, d in [*distances.items(), ("all", np.concatenate(list(distances.values())))]:
        expected = {
            "mean": d.mean(),
            "rms": math.sqrt((d**2).mean()),
            "near_midpoint": (np.abs(d - 0.5) <= 1 / 16).mean(),
        }
        for metric, value in expected.items():
            found = metrics[f"distance/{name}/{metric}"]
            assert found == pytest.approx(value, rel=1e-4, abs=1e-5), metric


@pytest.mark.parametrize("growth", [1.0, 3.0])
def test_distances_are_those_of_a_search_in_float64(
    growth: float,
    fmt: Format,
    scaling: ScalingSettings,
    residency: str,
    place_of: Callable[..., Any],
    recorder: Any,
    witness: Any,
) -> None:
    """With ``growth`` the masters leave the grid, and the resident weights change their scale."""
    torch.manual_seed(4)

    def change(name: str, weight: Tensor) -> Tensor:
        return weight * growth * (1 + 0.02 * torch.randn_like(weight))

    grid = witness(fmt)
    record = recorder(place_of("distance", fmt, scaling=scaling, residency=residency), change)
    metrics = record.step()

    def distance(u: float, scale: float) -> float:
        return abs(u - grid.nearest(u, scale)) / grid.gap(u, scale)

    distances = record.map(distance, record.intended, record.scale)
    assert_distances(metrics, distances)
    assert len(metrics) == 3 * 3
    if (
        residency == "grid" and fmt.name != "zeroless"
    ):  # whose negative end is nearer than its other
        assert max(d.max() for d in distances.values()) <= 0.5 + 1e-6


def test_weights_on_the_grid_and_in_the_middle(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    fmt = load_format("e4m3")
    kwargs = {"scaling": ScalingSettings(mode="frozen"), "residency": "grid"}
    place = place_of("distance", fmt, **kwargs)
    metrics = place.step()
    assert [metrics[f"distance/all/{m}"] for m in ("mean", "rms", "near_midpoint")] == [0, 0, 0]

    def half_a_gap(name: str, weight: Tensor) -> Tensor:
        if name not in place.weights:
            return weight
        gap = place.weights[name].ulp(weight)
        inwards = torch.where(weight > 0, -1, 1)  # where the gap may be half as large
        return weight + inwards * gap / 4 + (name == "2.weight") * inwards * gap / 4

    metrics = place.step(change=half_a_gap)
    # from a power of two downwards a quarter of the gap above is a half of the gap below
    assert 0.25 <= metrics["distance/0.weight/mean"] < 0.35
    assert metrics["distance/2.weight/mean"] <= 0.5
    assert metrics["distance/2.weight/near_midpoint"] > 0.7
    assert metrics["distance/0.weight/near_midpoint"] < 0.3


def test_far_steps_are_uniform(
    load_format: Callable[..., Format], bench: Any, load_monitor: Callable[..., Monitor]
) -> None:
    for residency in ("master", "grid"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(200, 200))
        quantize_model(model, load_format("e0m7"), residency=residency)
        place = bench(load_monitor("distance"), model)
        metrics = place.step(
            inputs=torch.ones(1, 200), change=lambda n, w: w * (1 - 0.5 * torch.rand_like(w))
        )
        assert metrics["distance/all/mean"] == pytest.approx(1 / 4, rel=0.02)
        assert metrics["distance/all/rms"] == pytest.approx(1 / math.sqrt(12), rel=0.02)
        assert metrics["distance/all/near_midpoint"] == pytest.approx(1 / 8, rel=0.05)


def test_a_broken_weight_shows(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    def spoil(name: str, weight: Tensor) -> Tensor:
        return weight.index_fill(0, torch.tensor([1]), math.nan) if name == "0.weight" else weight

    for residency in ("master", "grid"):
        place = place_of("distance", load_format("e5m2"), residency=residency)
        metrics = place.step(inputs=torch.randn(3, 6), change=spoil)
        for metric in ("mean", "rms", "near_midpoint"):
            assert math.isnan(metrics[f"distance/0.weight/{metric}"])
            assert math.isfinite(metrics[f"distance/2.weight/{metric}"])
            assert math.isnan(metrics[f"distance/all/{metric}"])
