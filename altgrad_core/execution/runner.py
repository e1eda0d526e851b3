"""Running a plan: run directories, data preparation, jobs, statuses. Free of torch.

Every run is a child process, so a crash, a kill or an out-of-memory ends one run and no other. Running a
plan again runs only what is missing.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from altgrad_core._files import write_json
from altgrad_core.errors import UserError
from altgrad_core.execution.outcome import status_after_exit
from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.planning.plan import Cell, Plan
from altgrad_core.planning.spec import RunSpec
from altgrad_core.planning.spec_file import dump_spec, load_spec
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.run_directory import (
    FINISHED,
    RunDirectory,
    Status,
    is_running,
)

_MAX_CPU_WORKERS = 8


def default_cache() -> Path:
    """``$ALTGRAD_CACHE``, or ``altgrad-bench`` in the user's cache folder."""
    if folder := os.environ.get("ALTGRAD_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "altgrad-bench"


@dataclass(frozen=True)
class RunOptions:
    """Where and how a plan is run. Nothing here enters a run's id."""

    runs: Path = Path("runs")
    device: str = "auto"
    workers: int | None = None
    threads: int | None = None
    timeout: float | None = None
    """Seconds per run."""
    executor: str = "local"
    cache: Path = field(default_factory=default_cache)
    command: str = ""
    """What the user typed, for the record."""


class Observer(Protocol):
    """Sees a suite being run."""

    def message(self, text: str) -> None:
        """A line for the reader."""

    def begin(self, total: int, done: int) -> None:
        """The suite has ``total`` runs, ``done`` of them finished earlier."""

    def started(self, job: Job, max_steps: int) -> None:
        """A run's process was started."""

    def progress(self, job: Job, status: Status) -> None:
        """A running run's latest sign of life."""

    def finished(self, job: Job, status: Status) -> None:
        """A run has ended."""


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
    """Run what is missing of ``plan``. Raises ``UserError`` before anything runs if the plan cannot be run."""
    cells = [(cell, cell.spec) for cell in plan.cells if cell.spec is not None]
    folder = options.runs / plan.suite.name
    directories = {spec.id: RunDirectory(folder / spec.id) for _, spec in cells}
    for _, spec in cells:
        _open_directory(directories[spec.id], spec)
    write_plan(folder, plan, options.command)
    todo = [(c, s) for c, s in cells if directories[s.id].status().status not in FINISHED]
    observer.begin(len(cells), len(cells) - len(todo))
    errors: list[str] = []
    if todo:
        device = _prepare([spec for _, spec in todo], directories, options, observer)
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


def write_plan(folder: Path, plan: Plan, command: str) -> None:
    """Write ``plan.json``: which cells the suite has, for ``status`` and ``report``."""
    suite = plan.suite
    contrast = suite.contrast.model_dump(mode="json") if suite.contrast is not None else None
    body: dict[str, Any] = {
        "suite": suite.name,
        "description": suite.description,
        "command": command,
        "contrast": contrast,
        "cells": [
            {
                "id": cell.spec.id if cell.spec else None,
                "condition": cell.label,
                "seed": cell.seed,
                "axes": dict(cell.axes),
                "skip": cell.skip,
            }
            for cell in plan.cells
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "plan.json", body)


def _prepare(
    specs: Sequence[RunSpec],
    directories: dict[str, RunDirectory],
    options: RunOptions,
    observer: Observer,
) -> str:
    """Load the data of every distinct task once, in a child process, and return the resolved device."""
    device = options.device
    seen: set[str] = set()
    for spec in specs:
        key = spec.task.model_dump_json()
        if key in seen:
            continue
        seen.add(key)
        observer.message(f"preparing data: {spec.task.name}")
        threads = options.threads or _cores()
        command = _worker_command(directories[spec.id], device, threads, options.cache, "--prepare")
        device = _run_prepare(command, _environment(threads), observer)
    return device


def _run_prepare(command: Sequence[str], environment: dict[str, str], observer: Observer) -> str:
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        last = ""
        for line in child.stdout:
            if last:
                observer.message(f"  {last}")
            last = line.rstrip()
        errors = child.stderr.read()
    if child.returncode == 0:
        answer = json.loads(last)
        observer.message(f"device: {answer['device']} ({answer['name']})")
        return str(answer["device"])
    if child.returncode == 2:
        raise UserError(errors.strip().rpartition("error: ")[2])
    tail = "\n".join(errors.strip().splitlines()[-15:])
    raise UserError(f"preparing the data failed with exit code {child.returncode}:\n{tail}")


def _execute(
    todo: Sequence[tuple[Cell, RunSpec]],
    directories: dict[str, RunDirectory],
    device: str,
    options: RunOptions,
    observer: Observer,
) -> list[str]:
    """Run the jobs, translate their ends into statuses, and return the messages of users' mistakes."""
    workers = options.workers or _default_workers(device, len(todo))
    threads = options.threads or max(1, _cores() // workers)
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
    threads = _threads_of_checkpoint(directory) or threads
    return Job(
        run_id=spec.id,
        label=f"{spec.condition} seed {spec.seed}",
        directory=directory.path,
        command=_worker_command(directory, device, threads, options.cache),
        environment=_environment(threads),
    )


def _worker_command(
    directory: RunDirectory, device: str, threads: int, cache: Path, *more: str
) -> tuple[str, ...]:
    return (
        sys.executable,
        *("-m", "altgrad_core.execution.worker", str(directory.path.resolve())),
        *("--device", device, "--threads", str(threads), "--cache", str(cache.resolve())),
        *more,
    )


def _environment(threads: int) -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # lets cuBLAS be deterministic
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _threads_of_checkpoint(directory: RunDirectory) -> int | None:
    """The thread count of an interrupted run: sums depend on it, and it must end bit-identical."""
    if not (directory.checkpoint.exists() and directory.environment.exists()):
        return None
    return int(json.loads(directory.environment.read_text())["threads"])


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _default_workers(device: str, runs: int) -> int:
    """One run at a time on a GPU; on the CPU one per core, since small models gain little from threads."""
    return 1 if device.startswith("cuda") else max(1, min(_cores(), _MAX_CPU_WORKERS, runs))


def command_line() -> str:
    """What the user typed, quoted for a shell."""
    return shlex.join(["altgrad-bench", *sys.argv[1:]])
