"""The cost of monitors: what is slow when due shows as such, at its interval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.execution import interleave, monitor_speed
from altgrad_core.execution.monitor_speed import measure_monitors
from altgrad_core.execution.present import speed_table
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite
from altgrad_core.training.loop import Trainer
from altgrad_plugins.monitors.geometry.flips import FlipsMonitor


@pytest.mark.slow
def test_a_planted_cost_is_found_and_spread_over_the_interval(
    write_suite: Callable[..., Path],
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    real_step, real_update = Trainer.step, FlipsMonitor.after_update

    def step(self: Trainer, number: int) -> Any:
        now[0] += 0.003
        return real_step(self, number)

    def slow(self: FlipsMonitor, step: Any) -> Any:
        now[0] += 0.2
        return real_update(self, step)

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(FlipsMonitor, "after_update", slow)
    monkeypatch.setattr(interleave.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(monitor_speed, "WINDOW", 40)
    suite = write_suite(monitors={"flips": {"interval": 20}, "amax": {"interval": 5}})
    spec = plan_suite(load_suite(suite)).specs[0]
    found = measure_monitors(
        spec, device="cpu", cache=own_cache, rounds=3, threads=1, log=lambda text: None
    )
    costs = {cost.name: cost for cost in found.rows}
    assert list(costs) == ["none", "amax", "flips", "all"]
    assert (costs["flips"].interval, costs["amax"].interval) == (20, 5)
    for name, due, average in [("none", 3, 3), ("amax", 3, 3), ("flips", 203, 13)]:
        assert costs[name].due == pytest.approx(due)
        assert costs[name].other == pytest.approx(3)
        assert costs[name].average == pytest.approx(average)
        assert costs[name].ratio == pytest.approx(average / 3)
    assert costs["all"].average == pytest.approx(13)  # two of 40 steps in the window are due
    table = speed_table(found)
    assert table.row_count == 4
    assert monitor_speed.ALL == "all"
