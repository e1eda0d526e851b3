"""Drift against positions found by a search in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import change_format

METRICS = ("mean", "rms", "beyond_rung", "scale_shift")


def test_drift_is_that_of_a_search_in_float64(
    fmt: Format,
    scaling: ScalingSettings,
    residency: str,
    place_of: Callable[..., Any],
    recorder: Any,
    witness: Any,
) -> None:
    """From the first step to the fourth, over changes of the scale."""
    torch.manual_seed(8)

    def change(name: str, weight: Tensor) -> Tensor:
        return weight * (1.3 + 0.2 * torch.randn_like(weight))

    grid = witness(fmt)
    record = recorder(place_of("drift", fmt, scaling=scaling, residency=residency), change)
    for step in range(1, 5):
        metrics = record.step(step)
        if step == 1:
            start = record.map(grid.position, record.before, record.old_scale)
            first = copy.deepcopy(record.old_scale)
    now = record.map(grid.position, record.after, record.scale)
    shifts = {n: np.log2(record.scale[n] / first[n]).ravel() for n in first}
    assert fmt.scaled == any((s != 0).any() for s in shifts.values())
    ways = {name: np.abs(now[name] - start[name]) for name in now}
    ways["all"], shifts["all"] = (np.concatenate(list(x.values())) for x in (ways, shifts))
    # positions are kept to 1/512 of a rung; float32 holds those of bf16 to as much
    tolerance = 1 / 256 if fmt.name == "bf16" else 1 / 500
    for name, way in ways.items():
        expected = (way.mean(), math.sqrt((way**2).mean()), (way > 1).mean(), shifts[name].mean())
        for metric, value in zip(METRICS, expected, strict=True):
            limit = 0 if metric == "beyond_rung" else tolerance
            found = metrics[f"drift/{name}/{metric}"]
            assert found == pytest.approx(value, rel=1e-5, abs=limit + 1e-9), (name, metric)
    assert len(metrics) == 3 * 4


def test_the_first_step_counts_and_the_way_back_is_no_drift(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    scaling = ScalingSettings(mode="frozen", headroom=4)
    place = place_of("drift", load_format("e0m7"), scaling=scaling, residency="grid")

    def by(gaps: float) -> Callable[[str, Tensor], Tensor]:
        def move(name: str, weight: Tensor) -> Tensor:
            known = name in place.weights
            return weight + gaps * place.weights[name].ulp(weight) if known else weight

        return move

    ways = [3.0, 1.0, 0.0]
    for step, (gaps, way) in enumerate(zip((3, -2, -1), ways, strict=True), start=1):
        metrics = place.step(step, change=by(gaps))
        found = [metrics[f"drift/all/{metric}"] for metric in METRICS]
        assert found == pytest.approx([way, way, float(way > 1), 0], abs=1e-12)


def test_a_doubled_scale_moves_every_normal_value_by_two_to_the_m(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    place = place_of("drift", load_format("e5m2"), {"layers": ("0.*",)})
    with torch.no_grad():
        place.weights["0.weight"].parameter.copy_(torch.full((7, 6), 1.0))
    place.step(1, inputs=torch.randn(3, 6))
    with torch.no_grad():
        place.weights["0.weight"].parameter[0, 0] = 2.0
    metrics = place.step(2, inputs=torch.randn(3, 6))
    assert metrics["drift/0.weight/scale_shift"] == 1
    assert metrics["drift/0.weight/mean"] == pytest.approx(4 * 41 / 42)
    assert metrics["drift/0.weight/beyond_rung"] == pytest.approx(41 / 42)


@pytest.mark.parametrize(
    ("name", "dtype"), [("e5m2", torch.int16), ("bf16", torch.int32), ("fp32", torch.int32)]
)
def test_starts_survive_a_restart(
    name: str,
    dtype: torch.dtype,
    place_of: Callable[..., Any],
    load_format: Callable[..., Format],
) -> None:
    def run(restart: bool) -> dict[str, float]:
        place = place_of("drift", load_format(name))
        torch.manual_seed(1)
        for step in (1, 2):
            place.step(step, inputs=torch.ones(3, 6), change=lambda n, w: w * 1.1)
        if restart:
            state = copy.deepcopy(place.panel.state_dict())
            (entry,) = state["monitors"]
            starts = entry["state"]["starts"]
            assert starts["0.weight"]["position"].dtype == dtype
            place.monitor._starts = {}
            place.monitor.start(place.run)
            place.panel.load_state_dict(state)
        metrics: dict[str, float] = place.step(
            3, inputs=torch.ones(3, 6), change=lambda n, w: w * 1.1
        )
        return metrics

    found = run(restart=True)
    assert found == run(restart=False)
    assert found["drift/all/mean"] > 0.5


def test_another_format_is_a_new_start(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    scaling = ScalingSettings(mode="frozen", headroom=4)
    place = place_of("drift", load_format("e5m2"), scaling=scaling)
    for step in (1, 2):
        metrics = place.step(step, inputs=torch.ones(3, 6), change=lambda n, w: w * 1.5)
    assert metrics["drift/all/mean"] > 2
    change_format(place.weights["0.weight"], load_format("e4m3"))
    metrics = place.step(3, inputs=torch.ones(3, 6))
    assert metrics["drift/0.weight/mean"] < 1 / 256
    assert metrics["drift/2.weight/mean"] > 2


def test_a_broken_weight_shows(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    def spoil(name: str, weight: Tensor) -> Tensor:
        return weight.index_fill(0, torch.tensor([1]), math.nan) if name == "0.weight" else weight

    metrics = place_of("drift", load_format("e5m2")).step(inputs=torch.randn(3, 6), change=spoil)
    for metric in METRICS:
        assert math.isnan(metrics[f"drift/0.weight/{metric}"])
        assert math.isfinite(metrics[f"drift/2.weight/{metric}"])
        assert math.isnan(metrics[f"drift/all/{metric}"])


@pytest.mark.parametrize("residency", ["master", "grid"])
def test_a_ladder_longer_than_that_of_a_symmetric_format_is_not_cut(
    residency: str, place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    """A table of 8 bits may have up to 255 rungs on one side of zero."""
    fmt = load_format("table", values=[float(value) for value in range(-20, 236)])
    scaling = ScalingSettings(mode="frozen", headroom=1)
    place = place_of("drift", fmt, {"layers": ("0.*",)}, scaling=scaling, residency=residency)
    geometry = place.weights["0.weight"]
    rungs = torch.linspace(-20, 230, 42).round().view(7, 6)

    def plant(name: str, weight: Tensor) -> Tensor:
        return rungs * geometry.scale() if name == "0.weight" else weight

    with torch.no_grad():
        geometry.parameter.copy_(plant("0.weight", geometry.parameter))
    for step, up in enumerate((0, 5, -20), start=1):
        by = up * geometry.scale()
        metrics = place.step(
            step, change=lambda n, w, by=by: plant(n, w) + (by if n == "0.weight" else 0)
        )
        inside = (rungs + up).clamp(-20, 235) if residency == "grid" else rungs + up
        way = float((inside - rungs).abs().mean())
        assert metrics["drift/0.weight/mean"] == pytest.approx(way, abs=1e-6)
