"""Flips and stalls against a count by hand, on a grid made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor


def nearest_index(value: float, grid: np.ndarray[Any, Any]) -> int:
    """Index of the nearest grid value; no test value is a tie."""
    return int(np.abs(grid - value).argmin())


@pytest.mark.parametrize("name", ["e5m2", "e0m7", "e7m0", "bf16"])
def test_counts_are_those_of_a_count_by_hand(
    name: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    model = two_layers(name)
    place = bench(load_monitor("flips", interval=1), model)
    torch.manual_seed(2)
    factors = {n: 1 + 0.06 * torch.randn(w.parameter.shape) for n, w in place.weights.items()}
    for factor in factors.values():
        factor[0] = 1.0  # no intended update in the first row
    old = {n: w.parameter.detach().clone() for n, w in place.weights.items()}
    metrics = place.step(
        inputs=torch.randn(3, 6),
        change=lambda n, weight: weight * factors[n] if n in factors else weight,
    )

    values = load_format(name).code_values().double()
    grid = np.array(sorted(set(values[values.isfinite()].tolist())))
    totals = [0, 0, 0, 0]
    for layer, before in old.items():
        amax = float(before.abs().max())
        scale = 1.0 if name == "bf16" else 2.0 ** math.ceil(math.log2(amax / grid[-1]))
        after = place.weights[layer].parameter.detach()
        flips = intended = stalls = 0
        for w0, w1 in zip(before.flatten().tolist(), after.flatten().tolist(), strict=True):
            same = nearest_index(w0 / scale, grid) == nearest_index(w1 / scale, grid)
            flips += not same
            intended += w0 != w1
            stalls += w0 != w1 and same
        expected = [flips, before.numel(), stalls, intended]
        assert_metrics(metrics, layer, expected)
        totals = [a + b for a, b in zip(totals, expected, strict=True)]
    assert_metrics(metrics, "all", totals)
    assert 0 < totals[0] < totals[1]
    assert len(metrics) == 3 * 4


def assert_metrics(metrics: dict[str, float], layer: str, counts: list[int]) -> None:
    flips, size, stalls, intended = counts
    assert metrics[f"flips/{layer}/flips"] == flips
    assert metrics[f"flips/{layer}/stalls"] == stalls
    assert metrics[f"flips/{layer}/flip_ratio"] == pytest.approx(flips / size, abs=0)
    assert metrics[f"flips/{layer}/stall_ratio"] == pytest.approx(stalls / intended, abs=0)


def test_without_an_intended_update_there_is_no_stall_ratio(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    metrics = bench(load_monitor("flips"), two_layers()).step()
    assert metrics["flips/all/flips"] == metrics["flips/all/stalls"] == 0
    assert metrics["flips/all/flip_ratio"] == 0
    assert math.isnan(metrics["flips/all/stall_ratio"])


def test_a_uniform_growth_that_a_new_scale_would_hide_is_counted(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    """Doubling every weight doubles amax: under a scale of its own it would change no rung."""
    place = bench(load_monitor("flips"), two_layers("e0m7"))
    metrics = place.step(inputs=torch.randn(3, 6), change=lambda name, weight: weight * 2)
    assert metrics["flips/all/flip_ratio"] > 0.9


def test_an_update_below_the_grid_is_all_stalls(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    def nudge(name: str, weight: Tensor) -> Tensor:
        return torch.nextafter(weight, weight * 2)

    metrics = bench(load_monitor("flips"), two_layers("e5m2")).step(change=nudge)
    assert metrics["flips/all/stalls"] == 7 * 6 + 5 * 7 - metrics["flips/all/flips"]
    assert metrics["flips/all/stall_ratio"] > 0.98


def resident_layer(two_layers: Any, **options: Any) -> Any:
    return two_layers("e3m4", residency="grid", **options)


def test_on_the_grid_a_stall_is_an_intended_update_that_rounding_took(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model = resident_layer(two_layers)
    place = bench(load_monitor("flips", interval=1), model)
    geometry = place.weights["0.weight"]
    gaps = {name: w.ulp(w.parameter.detach()) for name, w in place.weights.items()}
    share = torch.zeros(7, 6)
    share[0], share[1], share[2, :2] = 0.2, -0.2, 0.9
    inner = geometry.rung(geometry.parameter.detach()).abs() < 100  # the ends have no next value
    share *= inner
    metrics = place.step(
        change=lambda n, weight: weight + share * gaps[n] if n == "0.weight" else weight
    )
    assert metrics["flips/0.weight/flips"] == int((share == 0.9).float().sum())
    assert metrics["flips/0.weight/stalls"] == int((share.abs() == 0.2).float().sum())
    assert metrics["flips/2.weight/flips"] == metrics["flips/2.weight/stalls"] == 0
    assert metrics["flips/all/scale_changes"] == 0


def test_a_change_of_scale_is_counted_and_is_neither_flip_nor_stall(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("flips", interval=1), resident_layer(two_layers))
    metrics = place.step(change=lambda n, weight: weight * 9.5 if n == "0.weight" else weight)
    assert metrics["flips/0.weight/scale_changes"] == 1
    assert metrics["flips/all/scale_changes"] == 1
    assert metrics["flips/0.weight/flips"] == metrics["flips/0.weight/stalls"] == 0
    assert math.isnan(metrics["flips/0.weight/stall_ratio"])
    assert place.step(2)["flips/all/scale_changes"] == 1
