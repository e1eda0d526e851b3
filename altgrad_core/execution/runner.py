"""Running a plan: run directories, data preparation, jobs, statuses. Free of torch.

Every run is a child process, so a crash, a kill or an out-of-memory ends one run and no other. Running a
plan again runs only what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from altgrad_core._files import write_json
from altgrad_core.errors import UserError
from altgrad_core.execution.launch import (
    cores,
    default_workers,
    threads_of_checkpoint,
    worker_command,
    worker_environment,
)
from altgrad_core.execution.options import Observer, RunOptions
from altgrad_core.execution.outcome import status_after_exit
from altgrad_core.execution.preparation import prepare_data
from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.planning.declaration import Suite
from altgrad_core.planning.plan import Cell, Plan, metrics_of
from altgrad_core.planning.spec import RunSpec
from altgrad_core.planning.spec_file import dump_spec, load_spec
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.run_directory import (
    FINISHED,
    RunDirectory,
    Status,
    is_running,
)


@dataclass(frozen=True)
class SuiteResult:
    """How the runs of a plan stand after running it."""

    directory: Path
    statuses: dict[str, Status]
    """By run id."""
    user_errors: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every run has a result (``diverged`` is one)."""
        return all(status.status in FINISHED for status in self.statuses.values())


def run_suite(plan: Plan, options: RunOptions, observer: Observer) -> SuiteResult:
    """Run what is missing of ``plan``. Raises ``UserError`` before anything runs if the plan cannot be run.

    Where learning rates are ``auto``, the tuning runs come first.
    """
    if not plan.tuned:
        return run_cells(plan.suite, plan.cells, plan.cells, options, observer)
    from altgrad_core.execution.tuning import run_tuned

    return run_tuned(plan, options, observer)


def run_cells(
    suite: Suite,
    cells: Sequence[Cell],
    every: Sequence[Cell],
    options: RunOptions,
    observer: Observer,
) -> SuiteResult:
    """Run what is missing of ``cells``. ``every`` cell of the suite is written to its ``plan.json``."""
    # Two cells may be one run, where a tuned learning rate meets a given one: the first stands for it.
    unique = {cell.spec.id: (cell, cell.spec) for cell in reversed(cells) if cell.spec is not None}
    planned = list(reversed(unique.values()))
    folder = options.runs / suite.name
    directories = {spec.id: RunDirectory(folder / spec.id) for _, spec in planned}
    for _, spec in planned:
        _open_directory(directories[spec.id], spec)
    write_plan(folder, suite, every, options.command)
    todo = [(c, s) for c, s in planned if directories[s.id].status().status not in FINISHED]
    observer.begin(len(planned), len(planned) - len(todo))
    errors: list[str] = []
    if todo:
        device = prepare_data([spec for _, spec in todo], directories, options, observer)
        errors = _execute(todo, directories, device, options, observer)
    statuses = {run_id: directory.status() for run_id, directory in directories.items()}
    return SuiteResult(folder, statuses, tuple(dict.fromkeys(errors)))


def _open_directory(directory: RunDirectory, spec: RunSpec) -> None:
    """Create the run's directory, or check that the one that is there belongs to this version and run."""
    if directory.spec.exists():
        load_spec(directory.spec)
        if is_running(directory):
            raise UserError(
                f"{directory.path} ({spec.condition}, seed {spec.seed}) is being run by another "
                f"process. Wait for it, or stop it, and run the suite again."
            )
    directory.create(dump_spec(spec))


def write_plan(folder: Path, suite: Suite, cells: Sequence[Cell], command: str) -> None:
    """Write ``plan.json``: which cells the suite has, for ``status`` and ``report``."""
    contrast = suite.contrast.model_dump(mode="json") if suite.contrast is not None else None
    body: dict[str, Any] = {
        "suite": suite.name,
        "description": suite.description,
        "command": command,
        "metrics": [asdict(metric) for metric in metrics_of(cells)],
        "contrast": contrast,
        "margin": suite.contrast.margin if suite.contrast is not None else None,
        "cells": [
            {
                "id": cell.spec.id if cell.spec else None,
                "condition": cell.label,
                "seed": cell.seed,
                "axes": dict(cell.axes),
                "skip": cell.skip,
                "stage": cell.stage,
            }
            for cell in cells
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "plan.json", body)


def _execute(
    todo: Sequence[tuple[Cell, RunSpec]],
    directories: dict[str, RunDirectory],
    device: str,
    options: RunOptions,
    observer: Observer,
) -> list[str]:
    """Run the jobs, translate their ends into statuses, and return the messages of users' mistakes."""
    workers = options.workers or default_workers(device, len(todo))
    threads = options.threads or max(1, cores() // workers)
    jobs = [_job(spec, directories[spec.id], device, threads, options) for _, spec in todo]
    steps = {spec.id: spec.training.max_steps for _, spec in todo}
    running: dict[str, Job] = {}
    errors: list[str] = []

    def started(job: Job) -> None:
        running[job.run_id] = job
        observer.started(job, steps[job.run_id])

    def finished(job: Job, end: Exit) -> None:
        del running[job.run_id]
        directory = directories[job.run_id]
        status = status_after_exit(directory, end)
        directory.write_status(status)
        if end.code == 2:
            errors.append(status.message)
        observer.finished(job, status)

    executor: Executor = catalog().build("executor", options.executor, {})
    try:
        executor.execute(
            jobs,
            workers=workers,
            timeout=options.timeout,
            started=started,
            finished=finished,
            tick=_ticker(running, directories, observer),
        )
    except KeyboardInterrupt:
        for job in running.values():
            directory = directories[job.run_id]
            status = directory.status().model_copy(
                update={"status": "killed", "message": "interrupted by the user"}
            )
            directory.write_status(status)
        raise
    return errors


def _ticker(
    running: dict[str, Job], directories: dict[str, RunDirectory], observer: Observer
) -> Callable[[], None]:
    """A callback that reports the running runs' progress about once a second."""
    last = 0.0

    def tick() -> None:
        nonlocal last
        if time.monotonic() - last < 1.0:
            return
        last = time.monotonic()
        for job in running.values():
            observer.progress(job, directories[job.run_id].status())

    return tick


def _job(
    spec: RunSpec, directory: RunDirectory, device: str, threads: int, options: RunOptions
) -> Job:
    threads = threads_of_checkpoint(directory) or threads
    return Job(
        run_id=spec.id,
        label=f"{spec.condition} seed {spec.seed}",
        directory=directory.path,
        command=worker_command(directory, device, threads, options.cache),
        environment=worker_environment(threads),
    )
