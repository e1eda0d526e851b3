"""Several processes that run one suite in one folder: the same one is shared, another one refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.execution import cells
from altgrad_core.execution.jobs import Ended
from altgrad_core.execution.options import RunOptions
from altgrad_core.execution.plan_file import SuiteHold, plan_of, write_plan
from altgrad_core.execution.runner import run_suite
from altgrad_core.planning.plan import Plan
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite


class Quiet:
    def message(self, text: str) -> None: ...

    def begin(self, total: int, done: int) -> None: ...


def run(plan: Plan, folder: Path, command: str) -> None:
    run_suite(plan, RunOptions(runs=folder, command=command), Quiet())  # type: ignore[arg-type]


@pytest.fixture
def planned(write_suite: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(cells, "run_jobs", lambda *_, **__: Ended())
    monkeypatch.setattr(cells, "prepare_data", lambda *_: "cpu")

    def made(*overrides: str) -> Plan:
        return plan_suite(load_suite(write_suite(), overrides))

    return made


@pytest.fixture
def under_way(planned: Any, tmp_path: Path) -> Iterator[Path]:
    """The folder of a suite that another process is running."""
    plan, folder = planned(), tmp_path / "tiny"
    with SuiteHold(folder) as hold:
        with hold.changing() as others:
            assert not others
            write_plan(folder, plan_of(folder, plan.suite, plan.cells, "the first"))
        yield folder


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["seeds=[0,1,2]"], "other conditions or seeds"),
        (["training.learning_rate=0.01"], "other settings or versions"),
        (
            ["contrast={baseline: adamw, treatment: manifold_adamw, margin: 0.2}"],
            "another contrast or margin",
        ),
    ],
)
def test_another_plan_is_refused_while_the_first_is_being_run(
    planned: Any, under_way: Path, overrides: Sequence[str], what: str
) -> None:
    before = (under_way / "plan.json").read_bytes()
    with pytest.raises(
        UserError, match=rf"tiny is being run by another process with {what}.*--runs"
    ):
        run(planned(*overrides), under_way.parent, "the second")
    assert (under_way / "plan.json").read_bytes() == before
    assert {path.name for path in under_way.iterdir()} == {"plan.json", "plan.lock", "lock"}


def test_the_same_plan_is_shared(planned: Any, under_way: Path) -> None:
    plan = planned()
    run(plan, under_way.parent, "the second")
    assert {spec.id for spec in plan.specs} <= {path.name for path in under_way.iterdir()}


def test_once_the_first_is_gone_another_plan_takes_its_place(planned: Any, tmp_path: Path) -> None:
    run(planned(), tmp_path, "the first")
    other = planned("training.learning_rate=0.01")
    run(other, tmp_path, "the second")
    plan = json.loads((tmp_path / "tiny" / "plan.json").read_text())
    assert {cell["id"] for cell in plan["cells"]} == {spec.id for spec in other.specs}


def test_a_plan_that_is_further_on_stays(planned: Any, under_way: Path) -> None:
    """Of two processes that tune one suite, the one that is behind knows fewer runs."""
    plan = planned()
    behind = plan_of(under_way, plan.suite, plan.cells, "the second")
    behind["cells"][0]["id"] = None
    write_plan(under_way, behind, shared=True)
    assert json.loads((under_way / "plan.json").read_text())["command"] == "the first"
    write_plan(under_way, behind)
    assert json.loads((under_way / "plan.json").read_text())["command"] == "the second"
