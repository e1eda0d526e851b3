"""Loading the data of a suite once, in a process of the executor's, before anything trains.

The process says what it does in a file of its own, one JSON object a line: ``{"message": ...}`` for the
reader, and at the end ``{"device": ..., "name": ...}`` or ``{"error": ...}``. What it and its libraries print
goes to a log, as with any job.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from altgrad_core._files import temporary_prefix
from altgrad_core.errors import UserError
from altgrad_core.execution.interruption import signals_held_back
from altgrad_core.execution.launch import (
    DEFAULT_THREADS,
    store_options,
    worker_command,
    worker_environment,
)
from altgrad_core.execution.options import Observer, RunOptions
from altgrad_core.execution.outcome import how_it_ended, last_lines
from altgrad_core.execution.plan_file import HERE, SuiteHold
from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.planning.spec import RunSpec
from altgrad_core.results.run_directory import RunDirectory

_LOG_LINES = 15


def prepare_data(
    specs: Sequence[RunSpec],
    directories: Mapping[str, RunDirectory],
    imports: tuple[str, ...],
    executor: Executor,
    options: RunOptions,
    observer: Observer,
    hold: SuiteHold = HERE,
) -> str:
    """Load the data of every distinct task once, and return the resolved device. Raises ``UserError``."""
    device = options.device
    tasks = {spec.task.model_dump_json(): spec for spec in reversed(specs)}
    for spec in reversed(tasks.values()):
        observer.message(f"preparing data: {spec.task.name}")
        device = _prepare(
            spec, directories[spec.id], device, imports, executor, options, observer, hold
        )
    return device


def _prepare(
    spec: RunSpec,
    directory: RunDirectory,
    device: str,
    imports: tuple[str, ...],
    executor: Executor,
    options: RunOptions,
    observer: Observer,
    hold: SuiteHold,
) -> str:
    threads = options.threads or DEFAULT_THREADS  # as the runs, to share what is imported
    with tempfile.TemporaryDirectory(
        prefix=temporary_prefix("preparation"), dir=directory.path.parent
    ) as name:
        folder = Path(name).resolve()
        report = _Report(folder / "report.jsonl", observer)
        more = ("--prepare", str(report.path), *store_options(options.store))
        command = worker_command(directory, device, threads, options.cache, *more)
        surroundings = worker_environment(threads)
        job = Job(
            "preparation",
            spec.task.name,
            folder,
            command,
            surroundings,
            imports,
            fetches=bool(options.store),
        )
        ends: list[Exit] = []
        with signals_held_back() as check:

            def tick() -> None:
                check()
                report.read()

            executor.execute(
                [job],
                workers=1,
                timeout=options.timeout,
                started=lambda job: None,
                finished=lambda job, end: ends.append(end),
                tick=tick,
            )
        hold.bring_report(report.path)
        report.read()
        return report.device(ends[0], folder / "log.txt")


class _Report:
    """The lines of the process's own file, as they come."""

    def __init__(self, path: Path, observer: Observer) -> None:
        self.path, self._observer = path, observer
        self._position = 0
        self._said: dict[str, str] = {}

    def read(self) -> None:
        """Pass new messages on, and remember the rest. A line is read when it is whole."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._position += len(line)
                self._said |= json.loads(line)
                if message := self._said.pop("message", None):
                    self._observer.message(f"  {message}")

    def device(self, end: Exit, log: Path) -> str:
        """The device that was found. Raises ``UserError`` if the process ended in any other way."""
        if "error" in self._said:
            raise UserError(self._said["error"])
        if end.code != 0 or "device" not in self._said:
            said = last_lines(log, _LOG_LINES)
            raise UserError(f"preparing the data failed: {how_it_ended(end)}:\n" + "\n".join(said))
        self._observer.message(f"device: {self._said['device']} ({self._said['name']})")
        return self._said["device"]
