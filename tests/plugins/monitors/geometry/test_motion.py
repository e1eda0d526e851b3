"""Step sizes in rungs against float64, and planted ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.settings import ScalingSettings

QUANTILES = {"median": 50, "q90": 90, "q99": 99, "max": 100}


@pytest.mark.parametrize("growth", [1.0, 3.0])
def test_sizes_are_those_of_float64_under_the_scale_of_the_step(
    growth: float,
    fmt: Format,
    scaling: ScalingSettings,
    residency: str,
    place_of: Callable[..., Any],
    recorder: Any,
    witness: Any,
) -> None:
    """With ``growth`` a resident weight changes its scale in this very step."""
    torch.manual_seed(4)

    def change(name: str, weight: Tensor) -> Tensor:
        return weight * growth * (1 + 0.5 * torch.randn_like(weight))

    grid = witness(fmt)
    record = recorder(place_of("motion", fmt, scaling=scaling, residency=residency), change)
    metrics = record.step()
    moved_scale = any((record.scale[n] != s).any() for n, s in record.old_scale.items())
    assert growth == 1 or moved_scale == (residency == "grid" and fmt.scaled)

    def motion(w: float, u: float, scale: float) -> float:
        return abs(u - w) / grid.gap(w, scale)

    sizes = record.map(motion, record.before, record.intended, record.old_scale)
    pooled = np.concatenate(list(sizes.values()))
    found: dict[str, list[float]] = {metric: [] for metric in QUANTILES}
    for name, m in sizes.items():
        for metric, percent in QUANTILES.items():
            value = min(v for v in m if 100 * (m <= v).sum() >= percent * len(m))
            found[metric].append(value)
            assert metrics[f"motion/{name}/{metric}"] == pytest.approx(value, rel=1e-5)
    for metric, values in found.items():
        value = max(values) if metric == "max" else np.mean(values)
        assert metrics[f"motion/all/{metric}"] == pytest.approx(value, rel=1e-5)
    for name, m in [*sizes.items(), ("all", pooled)]:
        assert metrics[f"motion/{name}/above_half"] == pytest.approx((m > 0.5).mean(), abs=1e-12)
        assert metrics[f"motion/{name}/above_one"] == pytest.approx((m > 1).mean(), abs=1e-12)
    assert len(metrics) == 3 * 6
    assert metrics["motion/all/above_half"] > 0


def test_planted_steps(place_of: Callable[..., Any], load_format: Callable[..., Format]) -> None:
    place = place_of("motion", load_format("e3m4"), {"layers": ("0.*",)})
    rungs = torch.zeros(42)
    rungs[:4], rungs[4:10], rungs[41] = 0.75, 0.5, 3.0

    def change(name: str, weight: Tensor) -> Tensor:
        if name != "0.weight":
            return weight
        return weight + place.weights[name].ulp(weight) * rungs.view(7, 6)

    metrics = place.step(inputs=torch.randn(3, 6), change=change)
    found = {name.split("/")[2]: value for name, value in metrics.items() if "/0." in name}
    expected = {"median": 0, "q90": 0.75, "q99": 3, "max": 3, "above_half": 5 / 42}
    # 3 gaps and 0.75 of one are exact up to the last bit of the weight
    assert found == pytest.approx(expected | {"above_one": 1 / 42}, rel=1e-4)


def test_a_broken_update_shows(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    def spoil(name: str, weight: Tensor) -> Tensor:
        return weight.index_fill(0, torch.tensor([1]), math.inf) if name == "0.weight" else weight

    metrics = place_of("motion", load_format("e5m2")).step(inputs=torch.randn(3, 6), change=spoil)
    for metric in (*QUANTILES, "above_half", "above_one"):
        assert math.isnan(metrics[f"motion/0.weight/{metric}"])
        assert math.isfinite(metrics[f"motion/2.weight/{metric}"])
        assert math.isnan(metrics[f"motion/all/{metric}"])
