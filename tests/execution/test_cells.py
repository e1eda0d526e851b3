"""What is the same for every cell and attempt, however the suite is run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.execution import cells, launch
from altgrad_core.execution.failures import failure_lines, rerun_command
from altgrad_core.execution.jobs import Ended
from altgrad_core.execution.options import RunOptions
from altgrad_core.execution.runner import run_suite
from altgrad_core.interfaces.executor import Job
from altgrad_core.locks.lock import run_lock
from altgrad_core.planning.plan import Plan
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.spec_file import dump_spec, load_spec
from altgrad_core.planning.suite import load_suite
from altgrad_core.results.run_directory import Record, RunDirectory, Status, StatusName


class Said:
    """Takes the place of what runs the jobs, and of the observer."""

    def __init__(self) -> None:
        self.threads: dict[str, str] = {}
        self.lines: list[str] = []

    def run_jobs(self, executor: Any, jobs: Sequence[Job], *_: Any, **__: Any) -> Ended:
        for job in jobs:
            told = job.command[job.command.index("--threads") + 1]
            assert job.environment["OMP_NUM_THREADS"] == told
            self.threads[job.run_id] = told
        return Ended()

    def message(self, text: str) -> None:
        self.lines.append(text)

    def begin(self, total: int, done: int) -> None: ...


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    said = Said()
    monkeypatch.setattr(cells, "run_jobs", said.run_jobs)
    monkeypatch.setattr(cells, "prepare_data", lambda *_: "cpu")
    monkeypatch.setattr(launch, "cores", lambda: 64)
    return said


@pytest.fixture
def plan(write_suite: Any) -> Plan:
    return plan_suite(load_suite(write_suite()))


def begun(runs: Path, run_id: str, status: StatusName, threads: int, *, checkpoint: bool) -> None:
    directory = RunDirectory(runs / "tiny" / run_id)
    directory.checkpoint.parent.mkdir(parents=True)
    directory.environment.write_text(json.dumps({"threads": threads}))
    directory.write_status(Status(status=status))
    if checkpoint:
        directory.checkpoint.write_bytes(b"state")


@pytest.mark.parametrize("workers", [None, 1, 3])
@pytest.mark.parametrize("done", [0, 3])
def test_threads_do_not_follow_from_machine_workers_or_what_is_left(
    plan: Plan, said: Said, tmp_path: Path, workers: int | None, done: int
) -> None:
    for spec in plan.specs[:done]:
        begun(tmp_path, spec.id, "diverged", 1, checkpoint=False)
    run_suite(plan, RunOptions(runs=tmp_path, workers=workers), said)  # type: ignore[arg-type]
    assert said.threads == {spec.id: "1" for spec in plan.specs[done:]}
    assert said.lines == []


def test_a_run_that_was_begun_keeps_its_threads_and_it_is_said(
    plan: Plan, said: Said, tmp_path: Path
) -> None:
    done, cut, restarted, new = (spec.id for spec in plan.specs)
    begun(tmp_path, done, "diverged", 1, checkpoint=False)
    begun(tmp_path, cut, "killed", 1, checkpoint=True)
    begun(tmp_path, restarted, "killed", 1, checkpoint=False)
    run_suite(plan, RunOptions(runs=tmp_path, threads=4), said)  # type: ignore[arg-type]
    assert said.threads == {cut: "1", restarted: "4", new: "4"}
    [line] = said.lines
    assert "2 of 4 runs were begun with --threads 1" in line
    assert "give --threads 1" in line


def test_an_unknown_executor_is_refused_before_anything_is_written(
    plan: Plan, said: Said, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"lokal.*local"):
        run_suite(plan, RunOptions(runs=tmp_path / "runs", executor="lokal"), said)  # type: ignore[arg-type]
    assert not (tmp_path / "runs").exists()


def test_a_run_whose_process_and_launcher_are_gone_is_not_running(
    plan: Plan, said: Said, tmp_path: Path
) -> None:
    gone, held = (spec.id for spec in plan.specs[:2])
    begun(tmp_path, gone, "running", 1, checkpoint=True)
    begun(tmp_path, held, "running", 1, checkpoint=True)
    with run_lock(RunDirectory(tmp_path / "tiny" / held).lock):
        statuses = run_suite(plan, RunOptions(runs=tmp_path), said).statuses  # type: ignore[arg-type]
    assert statuses[gone].status == "killed"
    assert statuses[held].status == "running"


DAMAGES = {
    "status.json": b'{"status": "ok", "st',
    "environment.json": bytes(range(256)),
    "facts.json": b"",
    "environment.json ": b'{"threads": [1], "packages": 3}',
    "metrics.jsonl": b"rubbish",
    "predictions.npz": b"PK\x03\x04half",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_run_with_a_damaged_file_is_run_again_and_stops_no_other(
    plan: Plan, said: Said, tmp_path: Path, name: str
) -> None:
    for spec in plan.specs:
        begun(tmp_path, spec.id, "ok", 1, checkpoint=False)
        directory = RunDirectory(tmp_path / "tiny" / spec.id)
        directory.create(dump_spec(spec))
        final = Record(step=1, kind="final", metrics={"final/test/x": 0.5})
        directory.metrics.write_text(final.to_json() + "\n")
        directory.write_status(Status(status="ok", record=directory.record_digest()))
    hurt = plan.specs[1].id
    (tmp_path / "tiny" / hurt / name.strip()).write_bytes(DAMAGES[name])
    run_suite(plan, RunOptions(runs=tmp_path), said)  # type: ignore[arg-type]
    assert said.threads.keys() == {hurt}


@pytest.mark.parametrize("text", ["", "layout: [", "\0", "a: b\n", "other"])
def test_a_damaged_spec_is_written_anew_and_the_result_stays(
    plan: Plan, said: Said, tmp_path: Path, text: str
) -> None:
    for spec in plan.specs:
        begun(tmp_path, spec.id, "diverged", 1, checkpoint=False)
        RunDirectory(tmp_path / "tiny" / spec.id).create(dump_spec(spec))
    first = plan.specs[0]
    file = RunDirectory(tmp_path / "tiny" / first.id).spec
    file.write_text(dump_spec(plan.specs[1]) if text == "other" else text)
    run_suite(plan, RunOptions(runs=tmp_path), said)  # type: ignore[arg-type]
    assert load_spec(file).id == first.id
    assert said.threads == {}
    [line] = said.lines
    assert str(file) in line
    assert "it is written anew" in line


@pytest.mark.parametrize("threads", ["{}", '{"threads": "two"}', "[]", "{"])
def test_threads_that_are_not_on_record_are_those_wanted(
    plan: Plan, said: Said, tmp_path: Path, threads: str
) -> None:
    first = plan.specs[0].id
    begun(tmp_path, first, "killed", 3, checkpoint=True)
    RunDirectory(tmp_path / "tiny" / first).environment.write_text(threads)
    run_suite(plan, RunOptions(runs=tmp_path), said)  # type: ignore[arg-type]
    assert said.threads[first] == "1"


@pytest.mark.parametrize("status", ["diverged", "killed"])
def test_a_spec_that_was_edited_under_its_id_is_written_anew_and_it_is_said(
    plan: Plan, said: Said, tmp_path: Path, status: StatusName
) -> None:
    first = plan.specs[0]
    for spec in plan.specs:
        begun(tmp_path, spec.id, status, 1, checkpoint=False)
        RunDirectory(tmp_path / "tiny" / spec.id).create(dump_spec(spec))
    directory = RunDirectory(tmp_path / "tiny" / first.id)
    directory.write_spec(dump_spec(first))
    edited = dump_spec(first).replace("learning_rate: 0.001", "learning_rate: 0.003")
    directory.spec.write_text(edited)
    run_suite(plan, RunOptions(runs=tmp_path), said)  # type: ignore[arg-type]
    assert load_spec(directory.spec) == first
    assert directory.has_result() == (status == "diverged")
    [line] = said.lines
    assert "training.learning_rate is 0.003, and was 0.001" in line


def test_only_some_of_what_is_missing(plan: Plan, said: Said, tmp_path: Path) -> None:
    ids = [spec.id for spec in plan.specs]
    begun(tmp_path, ids[0], "diverged", 1, checkpoint=False)
    begun(tmp_path, ids[1], "oom", 1, checkpoint=False)
    for only, expected in (
        (("failed",), {ids[1]}),
        ((ids[3][:8],), {ids[3]}),
        (("failed", ids[2]), {ids[1], ids[2]}),
        ((ids[0],), set()),
        (("zzz",), set()),
    ):
        said.threads.clear()
        result = run_suite(plan, RunOptions(runs=tmp_path, only=only), said)  # type: ignore[arg-type]
        assert said.threads.keys() == expected
        assert result.ok_as_asked == (not expected)
        assert not result.ok
    assert said.lines == ["note: --only zzz: no id of these runs begins so"]


def test_what_has_no_result_is_told_with_the_command_that_runs_it_again(
    plan: Plan, said: Said, tmp_path: Path
) -> None:
    ids = [spec.id for spec in plan.specs]
    begun(tmp_path, ids[0], "diverged", 1, checkpoint=False)
    begun(tmp_path, ids[1], "oom", 1, checkpoint=False)
    result = run_suite(plan, RunOptions(runs=tmp_path), said)  # type: ignore[arg-type]
    typed = "altgrad-bench run 'my suite.yaml' --only abc --retries 2 --only=def"
    head, one, pending, again = failure_lines(result, typed)
    assert head == "1 of 4 runs ended without a result:"
    assert f"oom      {result.labels[ids[1]]} ({ids[1]})" in one
    assert pending == "2 of 4 runs have not been begun."
    assert again.endswith(f"altgrad-bench run 'my suite.yaml' --retries 2 --only {ids[1]}")
    assert rerun_command(typed, ids * 9).endswith("--retries 2 --only failed")
