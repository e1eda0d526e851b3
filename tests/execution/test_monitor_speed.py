"""The cost of monitors: what is slow when due shows as such, at its interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from altgrad_core.execution import monitor_speed
from altgrad_core.execution.monitor_speed import measure_monitors
from altgrad_core.execution.present import speed_table
from altgrad_core.planning.plan import plan_suite
from altgrad_core.planning.suite import load_suite
from altgrad_plugins.monitors.geometry.flips import FlipsMonitor


def test_a_planted_cost_is_found_and_spread_over_the_interval(
    write_suite: Callable[..., Path],
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = FlipsMonitor.after_update

    def slow(self, step):  # type: ignore[no-untyped-def]
        time.sleep(0.2)
        return real(self, step)

    monkeypatch.setattr(FlipsMonitor, "after_update", slow)
    suite = write_suite(monitors={"flips": {"interval": 20}, "amax": {"interval": 5}})
    spec = plan_suite(load_suite(suite)).specs[0]
    found = measure_monitors(
        spec, device="cpu", cache=own_cache, rounds=3, threads=1, log=lambda text: None
    )
    costs = {cost.name: cost for cost in found}
    assert list(costs) == ["none", "amax", "flips", "all"]
    assert (costs["flips"].interval, costs["amax"].interval) == (20, 5)
    assert costs["flips"].due - costs["flips"].other > 190
    assert costs["flips"].other < 150
    expected = costs["flips"].other + (costs["flips"].due - costs["flips"].other) / 20
    assert costs["flips"].average == pytest.approx(expected)
    assert costs["flips"].ratio == pytest.approx(expected / costs["none"].average)
    # ten of 200 steps in the window are due, 0.2 s each: 10 ms a step, however fast the others are
    assert costs["all"].average > 10
    table = speed_table(found)
    assert table.row_count == 4
    assert monitor_speed.ALL == "all"
