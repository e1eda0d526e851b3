"""Steps in rungs against steps of the weights: exactly proportional on a uniform grid, and only there."""

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
from altgrad_core.quantization.settings import ScalingSettings

TABLE = [-1.0, -0.3125, -0.1875, 0.0625, 0.125, 0.4375, 0.875, 1.5]


def step_of(size: float) -> Callable[[str, Tensor], Tensor]:
    """Steps of a random size; the first row of each weight stays."""

    def change(name: str, weight: Tensor) -> Tensor:
        noise = size * torch.randn_like(weight)
        noise[0] = 0
        return weight + noise

    return change


@pytest.mark.parametrize("residency", ["master", "grid"])
@pytest.mark.parametrize("size", [1e-5, 1e-3, 0.03])
@pytest.mark.parametrize("name", ["e0m7", "e1m6"])
def test_on_a_uniform_grid_both_steps_are_proportional_to_the_last_digit(
    name: str,
    size: float,
    residency: str,
    load_monitor: Callable[..., Monitor],
    bench: Any,
    two_layers: Any,
) -> None:
    torch.manual_seed(2)
    scaling = ScalingSettings(mode="frozen", headroom=2)
    model = two_layers(name, residency=residency, scaling=scaling)
    place = bench(load_monitor("uniformity"), model)
    metrics = place.step(inputs=torch.randn(3, 6), change=step_of(size))
    for layer in ("0.weight", "2.weight", "all"):
        assert metrics[f"uniformity/{layer}/correlation"] == pytest.approx(1, abs=1e-12)
        assert metrics[f"uniformity/{layer}/stiffness_cv"] == 0
    assert len(metrics) == 3 * 2


def position(w: float, grid: np.ndarray, gap: Callable[[float], float]) -> float:
    k = int(np.abs(grid - w).argmin())
    return k + (w - grid[k]) / gap(w)


def gaps_of(name: str, grid: np.ndarray) -> Callable[[float], float]:
    def gap(w: float) -> float:
        if name == "e7m0" and abs(w) >= grid[-1]:  # a new binade begins
            return float(grid[-1])
        low = int(np.searchsorted(grid, w, side="right" if w >= 0 else "left")) - 1
        low = min(max(low, 0), len(grid) - 2)
        return float(grid[low + 1] - grid[low])

    return gap


@pytest.mark.parametrize("residency", ["master", "grid"])
@pytest.mark.parametrize("name", ["e5m2", "e3m4", "e7m0", "bf16", "table"])
def test_elsewhere_they_are_those_of_numpy(
    name: str,
    residency: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    fmt = load_format(name, values=TABLE) if name == "table" else load_format(name)
    values = fmt.code_values().double()
    values = np.array(sorted(set((values[values.isfinite()] + 0.0).tolist())))
    model = two_layers(fmt, residency=residency, scaling=ScalingSettings(mode="frozen"))
    place = bench(load_monitor("uniformity"), model)
    before, intended = {}, {}
    change = step_of(0.05)

    def move(layer: str, weight: Tensor) -> Tensor:
        new = change(layer, weight)
        before[layer], intended[layer] = weight.double(), new.double()
        return new

    torch.manual_seed(2)
    metrics = place.step(inputs=torch.randn(3, 6), change=move)
    rows = []
    for layer, geometry in place.weights.items():
        grid = values * float(geometry.scale())
        gap = gaps_of(name, grid)
        pairs = zip(*(x[layer].flatten().tolist() for x in (before, intended)), strict=True)
        moved = [(w, u) for w, u in pairs if w != u]
        assert len(moved) == before[layer].numel() - before[layer].shape[1]
        bits = [abs(position(u, grid, gap) - position(w, grid, gap)) for w, u in moved]
        stiffness = np.array([gap(w) for w, _ in moved])
        correlation = np.corrcoef(bits, [abs(u - w) for w, u in moved])[0, 1]
        rows.append((correlation, stiffness.std() / stiffness.mean()))
        for metric, value in zip(("correlation", "stiffness_cv"), rows[-1], strict=True):
            found = metrics[f"uniformity/{layer}/{metric}"]
            assert found == pytest.approx(value, rel=1e-4), metric
        assert correlation < 0.95
        assert stiffness.std() > 0
    for metric, each in zip(("correlation", "stiffness_cv"), zip(*rows, strict=True), strict=True):
        assert metrics[f"uniformity/all/{metric}"] == pytest.approx(np.mean(each), rel=1e-4)


@pytest.mark.parametrize("granularity", ["channel", "block"])
def test_several_scales_are_several_stiffnesses_on_a_uniform_grid_too(
    granularity: Any, load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model = two_layers("e0m7", scaling=ScalingSettings(granularity=granularity, block_size=2))
    with torch.no_grad():
        model[0].weight.mul_(torch.logspace(0, 3, 7, base=2.0)[:, None])
    place = bench(load_monitor("uniformity"), model)
    metrics = place.step(inputs=torch.randn(3, 6), change=step_of(1e-3))
    geometry = place.weights["0.weight"]
    gaps = (geometry.scale().expand(7, 6)[1:] / 128).double().numpy()
    assert metrics["uniformity/0.weight/stiffness_cv"] == pytest.approx(gaps.std() / gaps.mean())
    assert gaps.std() > 0
    assert metrics["uniformity/0.weight/correlation"] < 0.999


def test_what_does_not_move_or_moves_its_scale_is_left_out(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    still = bench(load_monitor("uniformity"), two_layers("e5m2")).step(inputs=torch.randn(3, 6))
    assert len(still) == 6
    assert all(math.isnan(value) for value in still.values())

    place = bench(load_monitor("uniformity"), two_layers("e5m2", residency="grid"))
    torch.manual_seed(0)
    metrics = place.step(
        change=lambda n, w: w * 16 if n == "0.weight" else w + 0.01 * torch.randn_like(w)
    )
    assert math.isnan(metrics["uniformity/0.weight/correlation"])
    assert math.isnan(metrics["uniformity/0.weight/stiffness_cv"])
    for metric in ("correlation", "stiffness_cv"):
        value = metrics[f"uniformity/2.weight/{metric}"]
        assert metrics[f"uniformity/all/{metric}"] == value > 0


def test_a_broken_update_shows(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    def spoil(name: str, weight: Tensor) -> Tensor:
        new = weight + 0.01 * torch.randn_like(weight)
        return new.index_fill(0, torch.tensor([1]), math.nan) if name == "0.weight" else new

    torch.manual_seed(0)
    metrics = bench(load_monitor("uniformity"), two_layers("e5m2")).step(
        inputs=torch.randn(3, 6), change=spoil
    )
    assert math.isnan(metrics["uniformity/0.weight/correlation"])
    assert math.isfinite(metrics["uniformity/2.weight/correlation"])
