"""Reversals against a memory of every weight kept by hand."""

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

METRICS = ("reversals", "reversal_ratio", "sign_flips", "sign_flip_ratio", "ever_flipped")


class Memory:
    """What the monitor should know: the last direction of every weight, as Python numbers."""

    def __init__(self) -> None:
        self.last: dict[str, dict[int, int]] = {}

    def step(self, record: Any, grid: Any) -> dict[str, list[int]]:
        """Reversals, flips after a flip, sign flips, weights that ever flipped, weights; by layer."""
        found = {}
        for name in record.before:
            last = self.last.setdefault(name, {})
            after = record.after if record.place.weights[name].resident else record.intended
            counts = [0, 0, 0]
            columns = (record.before, after, record.old_scale, record.scale)
            rows = zip(*(c[name].ravel().tolist() for c in columns), strict=True)
            for i, (w0, w1, s0, s1) in enumerate(rows):
                if s0 != s1:
                    continue
                k0, k1 = grid.index(w0, s0), grid.index(w1, s1)
                if k0 != k1:
                    up = 1 if k1 > k0 else -1
                    counts[0] += last.get(i) == -up
                    counts[1] += i in last
                    last[i] = up
                counts[2] += grid.values[k0] * grid.values[k1] < 0
            found[name] = [*counts, len(last), record.before[name].size]
        found["all"] = np.sum(list(found.values()), axis=0).tolist()
        return found


def assert_counts(metrics: dict[str, float], counts: dict[str, list[int]]) -> None:
    for name, (reversals, again, signs, ever, size) in counts.items():
        ratio = reversals / again if again else math.nan
        values = (reversals, ratio, signs, signs / size, ever / size)
        for metric, value in zip(METRICS, values, strict=True):
            found = metrics[f"reversals/{name}/{metric}"]
            assert found == pytest.approx(value, abs=0, nan_ok=True), metric
    assert len(metrics) == len(METRICS) * len(counts)


def test_counts_are_those_of_a_memory_kept_by_hand(
    fmt: Format,
    scaling: ScalingSettings,
    residency: str,
    place_of: Callable[..., Any],
    recorder: Any,
    witness: Any,
) -> None:
    torch.manual_seed(6)

    def change(name: str, weight: Tensor) -> Tensor:
        return weight + 0.15 * torch.randn_like(weight)

    grid, memory = witness(fmt), Memory()
    place = place_of("reversals", fmt, scaling=scaling, residency=residency)
    record = recorder(place, change)
    for step in range(1, 7):
        metrics = record.step(step)
        counts = memory.step(record, grid)
        assert_counts(metrics, counts)
    assert min(counts["all"][:4]) > 0


def test_going_on_never_reverses_and_swinging_always(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    scaling = ScalingSettings(mode="frozen", headroom=8)
    place = place_of("reversals", load_format("e0m7"), scaling=scaling, residency="grid")

    def change(step: int) -> Callable[[str, Tensor], Tensor]:
        def move(name: str, weight: Tensor) -> Tensor:
            if name not in place.weights:
                return weight
            gap = place.weights[name].ulp(weight)
            return weight + gap if name == "0.weight" else weight + gap * (-1) ** step

        return move

    metrics = place.step(1, change=change(1))
    assert math.isnan(metrics["reversals/all/reversal_ratio"])
    assert metrics["reversals/all/ever_flipped"] == 1
    for step in (2, 3, 4):
        metrics = place.step(step, change=change(step))
        assert metrics["reversals/0.weight/reversal_ratio"] == 0
        assert metrics["reversals/2.weight/reversal_ratio"] == 1
        assert metrics["reversals/all/reversals"] == 35


def test_crossing_zero_is_a_matter_of_values_not_of_rungs(
    place_of: Callable[..., Any], any_format: Callable[[str], Format]
) -> None:
    """On a grid without zero, rung 0 is a positive value; from 0 to 1 on another is no crossing."""
    for name, start, end, crosses in (
        ("zeroless", -0.2, 0.05, 1),
        ("zeroless", 0.1, 0.05, 0),
        ("e0m7", -1 / 128, 1 / 128, 1),
        ("e0m7", 0.0, 1 / 128, 0),
        ("e0m7", -1 / 128, 0.0, 0),
    ):
        fmt = any_format(name)
        scaling = ScalingSettings(mode="frozen")
        place = place_of("reversals", fmt, scaling=scaling, residency="grid")
        scales = {n: float(g.scale()) for n, g in place.weights.items()}
        place.step(1, change=lambda n, w, v=start, s=scales: w * 0 + v * s.get(n, 0))
        metrics = place.step(2, change=lambda n, w, v=end, s=scales: w * 0 + v * s.get(n, 0))
        assert metrics["reversals/all/sign_flip_ratio"] == crosses, (name, start, end)
        assert metrics["reversals/all/sign_flips"] == crosses * 77


def test_the_longest_way_on_the_widest_ladder_has_a_direction(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    """Rungs of fp32 lie up to 2^32 apart, more than int32 can hold."""
    place = place_of("reversals", load_format("fp32"))
    for step, sign in enumerate((-1, 1, -1), start=1):
        metrics = place.step(step, change=lambda n, w, s=sign: w * 0 + s * 3e38)
    assert metrics["reversals/all/reversal_ratio"] == 1
    assert metrics["reversals/all/sign_flip_ratio"] == 1


def test_directions_survive_a_restart_in_one_byte_each(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    def change(step: int) -> Callable[[str, Tensor], Tensor]:
        generator = torch.Generator().manual_seed(step)
        return lambda name, w: w + 0.005 * torch.randn(w.shape, generator=generator)

    def run(restart: bool) -> dict[str, float]:
        place = place_of("reversals", load_format("e3m4"), residency="grid")
        for step in (1, 2, 3):
            place.step(step, change=change(step))
        if restart:
            state = copy.deepcopy(place.panel.state_dict())
            (entry,) = state["monitors"]
            directions = entry["state"]["directions"]
            assert {d.dtype for d in directions.values()} == {torch.int8}
            assert set(directions["0.weight"].unique().tolist()) == {-1, 0, 1}
            place.monitor._directions = {}
            place.monitor.start(place.run)
            place.panel.load_state_dict(state)
        metrics: dict[str, float] = place.step(4, change=change(4))
        return metrics

    assert run(restart=True) == run(restart=False)
