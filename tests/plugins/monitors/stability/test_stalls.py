"""Stalls, predicted and realised, against a search over all grid values in float64."""

from __future__ import annotations

import io
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

LAYERS = ("0.weight", "2.weight")
SIZES = {"bf16": 2.0**-9, "e0m7": 0.02, "e3m4": 0.05, "e7m0": 0.7, "table": 0.7}
"""Changes that nearest rounding loses in part."""


def grid_of(fmt: Format) -> np.ndarray[Any, Any]:
    values = fmt.code_values().double()
    return np.array(sorted(set(values[values.isfinite()].tolist())))


def nearest(value: float, grid: np.ndarray[Any, Any]) -> int:
    """Index of the nearest grid value; no test value is a tie."""
    return int(np.abs(grid - value).argmin())


class Nudge:
    """A change of weights by a share of themselves, none in the first row, the same for every bench."""

    def __init__(self, size: float) -> None:
        self.size = size
        self.wanted: dict[str, Tensor] = {}

    def __call__(self, name: str, weight: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(len(name) + int(name[0]))
        factor = 1 + self.size * torch.randn(weight.shape, generator=draw)
        if name in LAYERS:
            factor[0] = 1.0
        self.wanted[name] = weight * factor
        return self.wanted[name]


@pytest.mark.parametrize("name", ["e5m2", "e3m4", "e0m7", "e7m0", "bf16", "table"])
@pytest.mark.parametrize("how", ["master", "nearest", "stochastic", "kahan"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_counts_are_those_of_a_count_by_hand(
    name: str,
    how: str,
    granularity: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    values = {"values": [0.0, 0.25, -0.25, 1.0, 3.0, -3.0, 0.5, -0.5]} if name == "table" else {}
    fmt = load_format(name, **values)
    options: dict[str, Any] = {
        "scaling": ScalingSettings(mode="frozen", granularity=granularity)  # type: ignore[arg-type]
    }
    if how != "master":
        options["residency"] = "grid"
        options["rounding"] = "stochastic" if how == "stochastic" else "nearest"
        options["compensation"] = load_format("bf16") if how == "kahan" else None
    place = bench(load_monitor("stalls"), two_layers(fmt, **options))
    flips = bench(load_monitor("flips"), two_layers(fmt, **options))
    old = {n: w.parameter.detach().clone() for n, w in place.weights.items()}
    size = SIZES.get(name, 0.1)
    nudge = Nudge(size)
    torch.manual_seed(11)
    metrics = place.step(inputs=torch.ones(1, 6), change=nudge)
    torch.manual_seed(11)
    realised = flips.step(inputs=torch.ones(1, 6), change=Nudge(size))
    totals = np.zeros(6)
    for layer, before in old.items():
        geometry = place.weights[layer]
        scale = geometry.scale().expand_as(before).flatten().tolist()
        wanted, after = nudge.wanted[layer], geometry.parameter.detach()
        counts = np.zeros(6)
        grid = grid_of(fmt)
        for s, w, u, new in zip(
            scale, *(x.flatten().tolist() for x in (before, wanted, after)), strict=True
        ):
            k = nearest(w / s, grid)
            moved = u != w
            same = nearest(new / s, grid) == k
            lost = nearest(grid[k] + (u - w) / s, grid) == k
            counts += (
                moved and lost,
                moved and lost and not same,
                moved and same and not lost,
                not moved,
                moved,
                1,
            )
        assert_metrics(metrics, layer, counts)
        totals += counts
        stalls = counts[0] - counts[1] + counts[2]
        assert realised[f"flips/{layer}/stalls"] == stalls
    assert_metrics(metrics, "all", totals)
    predicted, rescued, unpredicted, zero, moved, _ = totals
    assert 0 < predicted < moved
    assert zero >= 6 + 7
    if how == "nearest":
        assert rescued == unpredicted == 0
    if how == "stochastic":
        assert rescued > 0
        assert unpredicted > 0
    assert len(metrics) == 3 * 7


def assert_metrics(metrics: dict[str, float], layer: str, counts: np.ndarray[Any, Any]) -> None:
    predicted, rescued, unpredicted, zero, moved, size = counts
    expected = {
        "predicted": predicted,
        "predicted_ratio": predicted / moved,
        "rescued": rescued,
        "rescued_ratio": rescued / predicted if predicted else math.nan,
        "unpredicted": unpredicted,
        "zero_updates": zero,
        "zero_ratio": zero / size,
    }
    found = {metric: metrics[f"stalls/{layer}/{metric}"] for metric in expected}
    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_without_an_intended_update_all_are_zero_updates(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    metrics = bench(load_monitor("stalls"), two_layers()).step()
    assert metrics["stalls/all/zero_ratio"] == 1
    assert metrics["stalls/all/predicted"] == 0
    assert math.isnan(metrics["stalls/all/predicted_ratio"])
    assert math.isnan(metrics["stalls/all/rescued_ratio"])


def test_elements_whose_scale_changed_are_not_judged(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("stalls"), two_layers("e5m2", residency="grid"))
    metrics = place.step(change=lambda name, w: w * 8 if name == "0.weight" else w * 1.001)
    assert float(place.weights["0.weight"].scale_changes()) == 1
    assert metrics["stalls/0.weight/predicted"] == 0
    assert math.isnan(metrics["stalls/0.weight/predicted_ratio"])
    assert metrics["stalls/2.weight/predicted_ratio"] == 1


def tiny(name: str, weight: Tensor) -> Tensor:
    return weight * (1 + 2.0**-12)


def test_a_resident_layer_that_stalls_for_long_is_an_event(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    """Layer 2 moves once, at step 2, and a step without any update counts neither way."""

    def change(name: str, weight: Tensor) -> Tensor:
        step = place.run.step
        if step == 4 or name not in LAYERS:
            return weight
        return weight * 0.8 if (name, step) == ("2.weight", 2) else tiny(name, weight)

    def build() -> Any:
        return bench(load_monitor("stalls", interval=1), two_layers("e5m2", residency="grid"))

    place, seen = build(), []
    for step in range(1, 9):
        place.step(step, change=change)
        assert place.last is not None
        seen += [(step, event.kind, event.layer) for event in place.last.events]
        file = io.BytesIO()
        torch.save(place.panel.state_dict(), file)
        file.seek(0)
        place = build()
        place.panel.load_state_dict(torch.load(file, weights_only=True))
    assert seen == [(3, "stall", "0.weight"), (6, "stall", "2.weight")]


def test_what_the_event_says(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model = two_layers("e5m2", residency="grid")
    place = bench(load_monitor("stalls", interval=1, patience=2, layers=("2.*",)), model)
    for step in (1, 2, 3):
        place.step(step, change=tiny)
    assert [event.message for event in place.events] == [
        "100.0% of the intended updates stalled at step 2, the last of 2 measurements in a row "
        "above 99.0%"
    ]


def test_masters_and_thresholds(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    def kinds(residency: str, **settings: Any) -> list[str]:
        monitor = load_monitor("stalls", interval=1, patience=1, **settings)
        place = bench(monitor, two_layers("e5m2", residency=residency))
        for step in (1, 2):
            place.step(step, change=tiny)
        return [event.layer for event in place.events]

    assert kinds("master") == []
    # a master may cross to another rung; a bound of 0.9 leaves room for that
    assert kinds("master", masters=True, threshold=0.9) == list(LAYERS)
    assert kinds("grid") == list(LAYERS)
    assert kinds("grid", threshold=0) == kinds("grid", threshold=None) == []
