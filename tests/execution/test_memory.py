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
from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.interfaces.task import Batch, Task
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.spec_file import dump_spec
from altgrad_core.planning.suite import load_suite
from altgrad_core.results.run_directory import RunDirectory
from altgrad_plugins.tasks.classification import TextClassification


class Here(Executor):
    """Runs jobs in this process."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def execute(self, jobs: Sequence[Job], **calls: Any) -> None:
        for job in jobs:
            calls["started"](job)
            code = worker.run_worker(job.directory, "cpu", self.cache)
            calls["finished"](job, Exit(code))


class Silent:
    def message(self, text: str) -> None: ...
    def begin(self, total: int, done: int) -> None: ...
    def started(self, job: Any, max_steps: int) -> None: ...
    def progress(self, job: Any, status: Any) -> None: ...
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
