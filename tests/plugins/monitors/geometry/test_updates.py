"""What arrives of an update, against float64, and the noise of stochastic rounding, against itself."""

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

METRICS = ("quality", "cosine", "snr_db", "sr_snr_db")


def decibels(signal: float, noise: float) -> float:
    return 10 * math.log10(signal / noise) if noise else math.inf


def expected_of(d: np.ndarray, r: np.ndarray, variance: np.ndarray) -> list[float]:
    return [
        float(r @ d) / float(d @ d),
        float(r @ d) / math.sqrt(float(r @ r) * float(d @ d)),
        decibels(float(d @ d), float(((r - d) ** 2).sum())),
        decibels(float(d @ d), float(variance.sum())),
    ]


@pytest.mark.parametrize("growth", [1.0, 3.0])
def test_all_four_are_those_of_float64(
    growth: float,
    fmt: Format,
    scaling: ScalingSettings,
    residency: str,
    place_of: Callable[..., Any],
    recorder: Any,
    witness: Any,
) -> None:
    """With ``growth`` the masters leave the grid, and the resident weights change their scale."""
    torch.manual_seed(9)

    def change(name: str, weight: Tensor) -> Tensor:
        return weight * growth * (1 + 0.5 * torch.randn_like(weight))

    grid = witness(fmt)
    record = recorder(place_of("updates", fmt, scaling=scaling, residency=residency), change)
    metrics = record.step()
    variance = record.map(grid.variance, record.intended, record.scale)
    intended = {n: (u - record.before[n]).ravel() for n, u in record.intended.items()}
    if residency == "grid":
        realised = {n: (w - record.before[n]).ravel() for n, w in record.after.items()}
    else:
        old = record.map(grid.nearest, record.before, record.old_scale)
        new = record.map(grid.nearest, record.intended, record.old_scale)
        realised = {name: new[name] - old[name] for name in old}
    for columns in (intended, realised, variance):
        columns["all"] = np.concatenate(list(columns.values()))
    for name, d in intended.items():
        values = expected_of(d, realised[name], variance[name])
        for metric, value in zip(METRICS, values, strict=True):
            found = metrics[f"updates/{name}/{metric}"]
            assert found == pytest.approx(value, rel=1e-4, abs=1e-4), (name, metric)
    assert len(metrics) == 3 * 4


def test_stalls_have_no_quality_and_whole_rungs_all_of_it(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    scaling = ScalingSettings(mode="frozen", headroom=8)
    place = place_of("updates", load_format("e0m7"), scaling=scaling, residency="grid")

    def move(name: str, weight: Tensor) -> Tensor:
        if name not in place.weights:
            return weight
        gap = place.weights[name].ulp(weight)
        return weight + gap * (0.25 if name == "0.weight" else 3)

    metrics = place.step(change=move)
    assert metrics["updates/0.weight/quality"] == 0
    assert math.isnan(metrics["updates/0.weight/cosine"])
    assert metrics["updates/0.weight/snr_db"] == 0
    # a quarter of the way: variance 3/16 of a gap², signal 1/16
    assert metrics["updates/0.weight/sr_snr_db"] == pytest.approx(10 * math.log10(1 / 3))
    assert metrics["updates/2.weight/quality"] == metrics["updates/2.weight/cosine"] == 1
    assert metrics["updates/2.weight/snr_db"] == metrics["updates/2.weight/sr_snr_db"] == math.inf


def test_no_update_has_no_quality(place_of: Callable[..., Any], fmt: Format) -> None:
    metrics = place_of("updates", fmt).step(inputs=torch.randn(3, 6))
    assert all(math.isnan(metrics[f"updates/all/{m}"]) for m in ("quality", "cosine", "snr_db"))


@pytest.mark.parametrize("name", ["e5m2", "e0m7", "e7m0", "table"])
def test_the_prediction_is_what_stochastic_rounding_then_does(
    name: str,
    load_format: Callable[..., Format],
    load_monitor: Callable[..., Monitor],
    bench: Any,
    place_of: Callable[..., Any],
) -> None:
    """A resident weight is rounded for real, with 40,000 draws; the realised error is the noise."""
    values = [-4.0, -3.0, -1.0, -0.25, 0.0, 0.125, 0.5, 4.0]
    fmt = load_format(name, values=values) if name == "table" else load_format(name)
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(200, 200))
    options = {"scaling": ScalingSettings(mode="frozen"), "residency": "grid"}
    quantize_model(model, fmt, rounding="stochastic", **options)  # type: ignore[arg-type]
    place = bench(load_monitor("updates"), model)
    metrics = place.step(change=lambda n, w: w * (1 - 0.4 * torch.rand_like(w)))
    predicted, realised = metrics["updates/all/sr_snr_db"], metrics["updates/all/snr_db"]
    assert realised == pytest.approx(predicted, abs=0.2)  # dB: 5 % of the variance
    assert metrics["updates/all/quality"] == pytest.approx(1, abs=0.05)


def test_the_prediction_is_there_where_rounding_goes_to_the_nearest(
    load_format: Callable[..., Format], load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    def metrics_of(rounding: Any) -> dict[str, float]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(20, 20))
        options = {"scaling": ScalingSettings(mode="frozen"), "residency": "grid"}
        quantize_model(model, load_format("e5m2"), rounding=rounding, **options)  # type: ignore[arg-type]
        found: dict[str, float] = bench(load_monitor("updates"), model).step(
            change=lambda n, w: w * 0.99
        )
        return found

    nearest, stochastic = metrics_of("nearest"), metrics_of("stochastic")
    assert nearest["updates/all/sr_snr_db"] == stochastic["updates/all/sr_snr_db"]
    assert nearest["updates/all/quality"] == 0
    assert stochastic["updates/all/quality"] != 0


def test_what_lies_beyond_the_grid_has_an_error_and_no_variance(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    place = place_of("updates", load_format("e0m7"))
    metrics = place.step(inputs=torch.randn(3, 6), change=lambda n, w: w.sign() * 1e3)
    assert metrics["updates/all/sr_snr_db"] == math.inf
    assert metrics["updates/all/snr_db"] < 0.1
    assert metrics["updates/all/quality"] < 0.01


def test_a_broken_update_shows(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    def spoil(name: str, weight: Tensor) -> Tensor:
        return (
            weight.index_fill(0, torch.tensor([1]), math.nan) if name == "0.weight" else weight / 2
        )

    for residency in ("master", "grid"):
        place = place_of("updates", load_format("e5m2"), residency=residency)
        metrics = place.step(inputs=torch.randn(3, 6), change=spoil)
        for metric in METRICS:
            assert math.isnan(metrics[f"updates/0.weight/{metric}"])
            assert not math.isnan(metrics[f"updates/2.weight/{metric}"])
            assert math.isnan(metrics[f"updates/all/{metric}"])
