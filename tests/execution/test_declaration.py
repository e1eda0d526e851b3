"""What a suite is to answer is fixed when its first run starts, in its ``plan.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.execution.plan_file import plan_of, write_plan
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import parse_suite
from altgrad_core.results.run_directory import RunDirectory, Status
from altgrad_core.results.sources import read_one

SUITE = """
name: toy
data: {dataset: license_rules}
seeds: [0, 1]
matrix:
  optimizer.type: [adamw, manifold_adamw]
contrast: {baseline: adamw, treatment: manifold_adamw, margin: 0.01}
"""


def declared(folder: Path, overrides: Sequence[str] = ()) -> Any:
    """What ``plan.json`` declares after the suite was started."""
    plan = plan_suite(parse_suite(SUITE, "toy.yaml", folder, overrides))
    write_plan(folder, plan_of(folder, plan.suite, plan.cells, "altgrad-bench run toy"))
    return json.loads((folder / "plan.json").read_text())["declared"]


def test_it_holds_question_seeds_conditions_time_and_versions(tmp_path: Path) -> None:
    found = declared(tmp_path)
    assert found["contrast"] == {
        "axis": "optimizer.type",
        "baseline": "adamw",
        "treatment": "manifold_adamw",
        "metric": "final/test/f1_micro_tuned",
    }
    assert (found["margin"], found["seeds"]) == (0.01, [0, 1])
    assert found["conditions"] == ["bf16_adamw", "bf16_manifold"]
    assert found["at"] > 1.7e9
    assert "altgrad-bench" in found["versions"]
    stored = read_one(tmp_path).plan
    assert stored is not None
    assert stored.declared is not None
    assert stored.declared.seeds == (0, 1)


@pytest.mark.parametrize(
    "override", ["seeds=[0,1,2]", "contrast.margin=0.5", "contrast.metric=f1_macro"]
)
def test_starting_the_suite_again_does_not_change_it(tmp_path: Path, override: str) -> None:
    before = declared(tmp_path)
    assert declared(tmp_path, [override]) == before


def test_nothing_is_declared_over_results_that_are_there(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "0123456789ab")
    run.path.mkdir()
    run.write_status(Status(status="ok"))
    assert declared(tmp_path) is None
    assert declared(tmp_path) is None, "nor later"
