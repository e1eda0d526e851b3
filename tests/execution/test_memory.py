"""A run for which there is no memory is ``oom``, and the suite goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from altgrad_core.execution import worker
from altgrad_core.execution.jobs import Policy, run_jobs
from altgrad_core.execution.options import RunOptions
from altgrad_core.execution.runner import run_suite
from altgrad_core.execution.splitting import Splitter, parts_of, parts_on_record, with_parts
from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.interfaces.task import Batch, Task
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.spec_file import dump_spec
from altgrad_core.planning.suite import load_suite
from altgrad_core.results.attempts import made_on
from altgrad_core.results.objects import read_environment
from altgrad_core.results.run_directory import RunDirectory
from altgrad_core.results.stored import read_suites
from altgrad_plugins.tasks.classification import TextClassification


class Here(Executor):
    """Runs jobs in this process."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def execute(self, jobs: Sequence[Job], **calls: Any) -> None:
        for job in jobs:
            calls["started"](job)
            code = worker.run_worker(job.directory, "cpu", self.cache, parts_of(job))
            calls["finished"](job, Exit(code))


class Built:
    """A catalog with one executor."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def build(self, *_: object) -> Executor:
        return self.executor


class Silent:
    def message(self, text: str) -> None: ...
    def begin(self, total: int, done: int) -> None: ...
    def started(self, job: Any, max_steps: int) -> None: ...
    def progress(self, job: Any, status: Any) -> None: ...
    def tried_again(self, job: Any, status: Any, how: str) -> None:
        self.message(f"{job.label}: {status.status} ({status.message}); {how}")

    def finished(self, job: Any, status: Any) -> None: ...


TOO_MUCH: dict[str, Callable[[], object]] = {
    "torch": lambda: torch.empty(1 << 50),
    "numpy": lambda: np.zeros(1 << 55),
    "python": lambda: bytearray(1 << 60),
}


@pytest.mark.parametrize("library", TOO_MUCH)
def test_the_suite_goes_on_and_a_retry_with_room_goes_on_from_the_checkpoint(
    write_suite: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
) -> None:
    specs = plan_suite(load_suite(write_suite(monitors=[]))).specs[:2]
    directories = {spec.id: RunDirectory(tmp_path / "runs" / spec.id) for spec in specs}
    for spec in specs:
        directories[spec.id].create(dump_spec(spec))
    calls: list[int] = []
    room = False
    batch = TextClassification.batch

    def hungry(task: Task, step: int, batch_size: int, seed: int) -> Batch:
        calls.append(step)
        if not room and len(calls) == 6:  # the first run, beyond its first checkpoint
            TOO_MUCH[library]()
        return batch(task, step, batch_size, seed)  # type: ignore[arg-type]

    monkeypatch.setattr(TextClassification, "batch", hungry)
    jobs = [Job(spec.id, spec.id, directories[spec.id].path, ("none",)) for spec in specs]

    def run(retries: int) -> list[str]:
        ended = run_jobs(
            Here(tmp_path / "cache"),
            jobs,
            directories,
            dict.fromkeys(directories, 12),
            Silent(),
            workers=1,
            timeout=None,
            policy=Policy(retries),
        )
        return [ended.statuses[spec.id].status for spec in specs]

    assert run(0) == ["oom", "ok"]
    assert directories[specs[0].id].checkpoint.exists()
    calls.clear()
    room = True
    assert run(0) == ["ok", "ok"]
    assert calls[0] == 5


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize(
    ("most", "retries", "end", "parts"), [(1, 1, "oom", 1), (4, 0, "ok", 4), (2, 0, "oom", 2)]
)
def test_batches_are_cut_until_there_is_room_and_the_record_says_so(
    write_suite: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    retries: int,
    end: str,
    parts: int,
) -> None:
    """There is room for two examples of a batch of eight at once."""
    loss = TextClassification.loss

    def hungry(task: Any, model: Any, batch: Batch) -> Any:
        if batch.samples > 2 and model.training and condition["hungry"]:
            raise MemoryError
        return loss(task, model, batch)

    condition = {"hungry": True}
    monkeypatch.setattr(TextClassification, "loss", hungry)
    here, told = Here(tmp_path / "cache"), Told()
    monkeypatch.setattr("altgrad_core.execution.runner.catalog", lambda: Built(here))
    monkeypatch.setattr("altgrad_core.execution.cells.prepare_data", lambda *_: "cpu")
    plan = plan_suite(load_suite(write_suite(monitors=[], matrix={"optimizer.type": ["adamw"]})))
    options = RunOptions(tmp_path / "runs", oom_accumulate=most, retries=retries, device="cpu")
    result = run_suite(plan, options, told)
    (status,) = result.statuses.values()
    assert status.status == end
    (place,) = result.directory.glob("*/spec.yaml")
    directory = RunDirectory(place.parent)
    environment = read_environment(directory.environment)
    assert environment.get("micro_batches", 1) == parts
    tries = [line for line in told.lines if "tried again with batches in" in line]
    assert len(tries) == {1: 0, 2: 1, 4: 2}[parts]
    if end == "ok":
        (run,) = read_suites(result.directory)[0].runs
        assert "micro_batches" in str(run.environment)
        assert made_on(environment)["micro_batches"] == "4"


def test_a_run_that_goes_on_keeps_the_parts_of_its_batches(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "0123456789ab")
    directory.create("id: 0123456789ab\n")
    directory.environment.write_text('{"micro_batches": 4, "step": 3}')
    assert parts_on_record(directory) == 1  # it begins anew
    directory.checkpoint.touch()
    assert parts_on_record(directory) == 4
    job = with_parts(Job("a", "a", tmp_path, ("worker", "--threads", "1")), 4)
    assert parts_of(job) == 4
    assert with_parts(job, 1).command == ("worker", "--threads", "1")
    assert Splitter(8, {"a": 6}).halved(job) is None  # a batch of six is not cut into eight
    assert parts_of(Splitter(8, {"a": 8}).halved(job)) == 8
