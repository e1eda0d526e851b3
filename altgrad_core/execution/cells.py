"""Running cells: run directories, data preparation, jobs. Free of torch.

Every run is a child process, so a crash, a kill or an out-of-memory ends one run and no other. Running the
cells again runs only what is missing.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from altgrad_core._files import write_json, write_text
from altgrad_core.errors import UserError
from altgrad_core.execution.jobs import run_jobs
from altgrad_core.execution.launch import (
    DEFAULT_THREADS,
    default_workers,
    threads_on_record,
    worker_command,
    worker_environment,
    worker_imports,
)
from altgrad_core.execution.options import Observer, RunOptions
from altgrad_core.execution.preparation import prepare_data
from altgrad_core.interfaces.executor import Executor, Job
from altgrad_core.planning.declaration import Suite
from altgrad_core.planning.plan import Cell, metrics_of
from altgrad_core.planning.spec import RunSpec
from altgrad_core.planning.spec_file import OtherLayout, dump_spec, load_spec
from altgrad_core.results.objects import read_object
from altgrad_core.results.run_directory import (
    FINISHED,
    RunDirectory,
    RunHeld,
    Status,
    run_lock,
)
from altgrad_core.results.stored import read_plan


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


def run_cells(
    suite: Suite,
    cells: Sequence[Cell],
    every: Sequence[Cell],
    executor: Executor,
    options: RunOptions,
    observer: Observer,
) -> SuiteResult:
    """Run what is missing of ``cells``. ``every`` cell of the suite is written to its ``plan.json``.

    Raises ``UserError`` before anything trains if the cells cannot be run.
    """
    # Two cells may be one run, where a tuned learning rate meets a given one: the first stands for it.
    unique = {cell.spec.id: (cell, cell.spec) for cell in reversed(cells) if cell.spec is not None}
    planned = list(reversed(unique.values()))
    folder = options.runs / suite.name
    directories = {spec.id: RunDirectory(folder / spec.id) for _, spec in planned}
    for _, spec in planned:
        _open_directory(directories[spec.id], spec)
    write_plan(folder, suite, every, options.command)
    todo = [(c, s) for c, s in planned if not directories[s.id].has_result()]
    observer.begin(len(planned), len(planned) - len(todo))
    errors: list[str] = []
    if todo:
        specs = [spec for _, spec in todo]
        imports = worker_imports(specs)
        device = prepare_data(specs, directories, imports, executor, options, observer)
        threads = _threads(directories, options.threads or DEFAULT_THREADS, observer)
        errors = run_jobs(
            executor,
            [_job(s, directories[s.id], device, threads[s.id], imports, options) for s in specs],
            directories,
            {spec.id: spec.training.max_steps for spec in specs},
            observer,
            workers=options.workers or default_workers(device, len(specs)),
            timeout=options.timeout,
        )
    statuses = {run_id: directory.status() for run_id, directory in directories.items()}
    return SuiteResult(folder, statuses, tuple(dict.fromkeys(errors)))


def _open_directory(directory: RunDirectory, spec: RunSpec) -> None:
    """Create the run's directory, or check that the one that is there belongs to this version and run.

    A run whose process is gone without a word, as after a power cut, gets the status that says so.
    """
    whole = directory.spec.exists() and _is_spec_of(directory, spec)
    if whole and directory.has_result():
        return
    directory.path.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(RunHeld), run_lock(directory):  # held: another suite has it in hand
        if not whole:
            write_text(directory.spec, dump_spec(spec))
        directory.create(dump_spec(spec))
        status = directory.status()
        if status.status == "running":
            gone = {"status": "killed", "message": "its process and its launcher were ended"}
            directory.write_status(status.model_copy(update=gone))


def _is_spec_of(directory: RunDirectory, spec: RunSpec) -> bool:
    """Whether the spec that is there can be read and has the id. Raises for one of another version."""
    try:
        return load_spec(directory.spec).id == spec.id
    except OtherLayout:
        raise
    except UserError:  # damaged: the id, which is the folder's name, says what it was
        return False


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
        "declared": _declaration(folder, suite, cells),
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


def _declaration(folder: Path, suite: Suite, cells: Sequence[Cell]) -> dict[str, Any] | None:
    """What the suite is to answer: fixed when its first run starts, and never changed after.

    None for a folder with results that were made before anything was declared.
    """
    before = read_object(folder / "plan.json")
    if "declared" in before:
        read_plan(folder)  # raises where it is no plan
        kept: dict[str, Any] | None = before["declared"]
        return kept
    there = (RunDirectory(one).status() for one in (folder.iterdir() if folder.is_dir() else ()))
    if any(status.status in FINISHED for status in there):
        return None
    final = [cell for cell in cells if cell.stage == "final"]
    specs = [spec for cell in final if (spec := cell.spec or cell.template) is not None]
    asked = suite.contrast
    return {
        "at": time.time(),
        "versions": {name: v for spec in specs for name, v in spec.distributions.items()},
        "contrast": asked.model_dump(mode="json", exclude={"margin"}) if asked else None,
        "metric": asked.metric if asked is not None else None,
        "margin": asked.margin if asked is not None else None,
        "seeds": list(dict.fromkeys(cell.seed for cell in final)),
        "conditions": list(dict.fromkeys(cell.label for cell in final)),
    }


def _threads(
    directories: dict[str, RunDirectory], wanted: int, observer: Observer
) -> dict[str, int]:
    """CPU threads of each run: ``wanted``, but a run that was begun goes on with what it began with.

    Says so where a suite's runs are not all made with the same number.
    """
    recorded = {run_id: threads_on_record(d) for run_id, d in directories.items()}
    for number, count in sorted(Counter(n for n in recorded.values() if n).items()):
        if number != wanted:
            observer.message(
                f"note: {count} of {len(directories)} runs were begun with --threads {number} and keep "
                f"it; the others get {wanted}. Runs with different numbers of threads can differ in "
                f"their last bits: give --threads {number} to keep all alike."
            )
    return {run_id: number or wanted for run_id, number in recorded.items()}


def _job(
    spec: RunSpec,
    directory: RunDirectory,
    device: str,
    threads: int,
    imports: tuple[str, ...],
    options: RunOptions,
) -> Job:
    return Job(
        run_id=spec.id,
        label=f"{spec.condition} seed {spec.seed}",
        directory=directory.path,
        command=worker_command(directory, device, threads, options.cache),
        environment=worker_environment(threads),
        preload=imports,
    )
