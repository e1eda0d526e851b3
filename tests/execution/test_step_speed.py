"""Steps and whole runs of a suite: ratios to plain bf16 and to bare steps, and the JSON form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from altgrad_core.cli import app
from altgrad_core.errors import UserError
from altgrad_core.execution import interleave, speeds
from altgrad_core.execution.present import condition_speed_table, suite_speed_table
from altgrad_core.execution.step_speed import PLAIN, measure_steps
from altgrad_core.execution.suite_speed import WHOLE, measure_suite
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite
from altgrad_core.training.loop import Trainer

LABELS = ["bf16_adamw", "bf16_manifold", "e5m2_adamw", "e5m2_manifold"]


@pytest.mark.slow
def test_a_planted_cost_is_found_however_often_it_is_due(
    write_suite: Callable[..., Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    real = Trainer.step

    def step(self: Trainer, number: int) -> Any:
        real(self, number)
        weights = list(self.parts.weights.values())
        coarse = bool(weights) and weights[0].format.name == "e5m2"
        now[0] += 0.002 + 0.02 * (coarse and number % 5 == 0)

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(interleave.time, "perf_counter", lambda: now[0])
    file = write_suite(monitors={"flips": {"interval": 25}})
    plan = plan_suite(load_suite(file, ["training.max_steps=40"]))
    found = measure_steps(plan, device="cpu", cache=own_cache, rounds=2, threads=1)
    rows = {row.condition: row for row in found.rows}
    assert list(rows) == [PLAIN, *LABELS]
    assert (found.steps, found.left_out) == (25, {})
    assert condition_speed_table(found).row_count == 5
    assert rows[PLAIN].median_ms == pytest.approx(2)
    assert (rows[PLAIN].ratio, rows[LABELS[1]].ratio) == (1, pytest.approx(1))
    assert rows[LABELS[2]].median_ms == pytest.approx(2 + 20 / 5)
    assert rows[LABELS[3]].ratio == pytest.approx(3)


def test_a_round_has_no_more_steps_than_a_run(
    write_suite: Callable[..., Path], own_cache: Path
) -> None:
    file = write_suite(monitors={"flips": {"interval": 20_000}})
    plan = plan_suite(load_suite(file, ["training.max_steps=2"]))
    found = measure_steps(plan, device="cpu", cache=own_cache, rounds=1, threads=1)
    assert found.steps == 2


def test_conditions_without_a_run_are_left_out_with_the_reason(
    write_suite: Callable[..., Path], own_cache: Path
) -> None:
    training = {"batch_size": 4, "learning_rate": "auto", "max_steps": 4}
    plan = plan_suite(load_suite(write_suite(training=training)))
    with pytest.raises(UserError, match=r"bf16_adamw: its learning rate is still to be tuned"):
        measure_steps(plan, device="cpu", cache=own_cache, rounds=1, threads=1)
    contradiction = {
        "quantization.residency": ["master", "grid"],
        "quantization.scaling": ["delayed"],
    }
    plan = plan_suite(load_suite(write_suite(matrix=contradiction)))
    found = measure_steps(plan, device="cpu", cache=own_cache, rounds=1, threads=1, steps=1)
    (why,) = found.left_out.values()
    assert "no delay" in why
    assert len(found.rows) == 2


@pytest.mark.slow
def test_runs_are_told_from_their_bare_steps(
    write_suite: Callable[..., Path], own_cache: Path
) -> None:
    suite = write_suite(matrix={"quantization.format": ["bf16", "e5m2"]})
    plan = plan_suite(load_suite(suite, ["training.max_steps=3"]))
    found = measure_suite(plan, device="cpu", cache=own_cache, rounds=1, threads=1)
    assert suite_speed_table(found).row_count == 3
    rows = {row.condition: row for row in found.rows}
    assert list(rows) == ["bf16_adamw", "e5m2_adamw", WHOLE]
    assert all(row.bare_ms > 0 for row in found.rows)
    assert rows[WHOLE].median_ms > rows["bf16_adamw"].q1_ms + rows["e5m2_adamw"].q1_ms
    assert not (suite.parent / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "more", "names"),
    [("step", ["--steps", "2"], [PLAIN, "e5m2_adamw"]), ("suite", [], ["e5m2_adamw", WHOLE])],
)
def test_the_command_prints_json_that_compares_over_commits(
    command: str,
    more: list[str],
    names: list[str],
    write_suite: Callable[..., Path],
    own_cache: Path,
) -> None:
    suite = write_suite(matrix={"quantization.format": ["e5m2"]})
    arguments = ["speed", command, str(suite), "--set", "training.max_steps=2", "--rounds", "1"]
    done = CliRunner().invoke(app, [*arguments, *more, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["keys"], found["suite"], found["schema"]) == (["condition"], "tiny", 1)
    assert [row["condition"] for row in found["rows"]] == names
    assert all(row["ratio"] > 0 for row in found["rows"])


@pytest.mark.parametrize(("spent", "said"), [(90.0, 2), (9.0, 0)])
def test_long_rounds_say_how_long_the_others_take(
    spent: float, said: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 100))
    monkeypatch.setattr(speeds.time, "monotonic", lambda: spent * next(now))
    words: list[str] = []
    assert list(speeds.told(3, words.append)) == [1, 2, 3]
    assert len(words) == said
    if said:
        assert words == [
            "round 1 of 3: 90 s; the others take about 3 min",
            "round 2 of 3: 90 s; the others take about 90 s",
        ]
