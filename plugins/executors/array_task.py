"""What a task of a Slurm array does: it runs its jobs one after another, and writes how each ended into a folder.

At its time limit it has the run write a checkpoint, and is queued again; the jobs that have ended are then passed over.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from altgrad_core.interfaces.executor import Exit, Job
from altgrad_plugins.executors.node import ask_to_save, run_here

_PATIENCE_SECONDS = 20.0
"""How long the checkpoint is waited for at the time limit."""
_POLL_SECONDS = 0.1
_NAMED = "SUBMITIT_PREEMPT_SIGNAL"
"""The environment variable that names submitit's signal."""


@dataclass(frozen=True)
class ArrayTask:
    """Called with its jobs; ``checkpoint`` is called with them before its time is over.

    folder, python:
        where the suite was started, and its interpreter.
    ends:
        the folder of ``RUN_ID.begun`` and ``RUN_ID.end``.
    """

    folder: Path
    python: str
    timeout: float | None
    ends: Path = Path()

    def __call__(self, jobs: Sequence[Job]) -> None:
        """Run what has not ended yet."""
        _keep_from_children(getattr(signal, f"SIG{os.environ.get(_NAMED, 'USR2')}"))
        for job in self._left(jobs):
            begun(self.ends, job).touch()
            end = run_here(job, folder=self.folder, python=self.python, timeout=self.timeout)
            write(ended(self.ends, job), asdict(end))

    def checkpoint(self, jobs: Sequence[Job]) -> Any:
        """The time is nearly over: have the run write a checkpoint, and say what is to be done next time.

        None if nothing is left to do.
        """
        from submitit.helpers import DelayedSubmission

        left = self._left(jobs)
        running = next((job for job in left if begun(self.ends, job).exists()), None)
        if running is not None:
            print(f"the time is over: {running.label} is asked for a checkpoint", flush=True)
            _saved(running)
        return DelayedSubmission(self, jobs) if left else None

    def _left(self, jobs: Sequence[Job]) -> list[Job]:
        return [job for job in jobs if not ended(self.ends, job).exists()]


def _keep_from_children(number: signal.Signals) -> None:
    """Have the signal of the time limit reach this process alone: Slurm sends it to all, and it would end a run.

    What this thread starts inherits that it is blocked here; another thread lets it through.
    """
    threading.Thread(target=threading.Event().wait, name="time limit", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})


def _saved(job: Job) -> None:
    """Ask for a checkpoint, and wait until there is a new one, within reason."""
    folder = job.directory / "checkpoint"
    before = folder.stat().st_mtime_ns if folder.exists() else 0
    deadline = time.monotonic() + _PATIENCE_SECONDS
    ask_to_save()
    while time.monotonic() < deadline:
        if folder.exists() and folder.stat().st_mtime_ns != before:  # the file was replaced
            time.sleep(_POLL_SECONDS)
            return
        time.sleep(_POLL_SECONDS)


def begun(ends: Path, job: Job) -> Path:
    """The file that says that a job has begun."""
    return ends / f"{job.run_id}.begun"


def ended(ends: Path, job: Job) -> Path:
    """The file that says how a job has ended."""
    return ends / f"{job.run_id}.end"


def read_end(ends: Path, job: Job) -> Exit:
    """How a job has ended."""
    return Exit(**json.loads(ended(ends, job).read_bytes()))


def write(path: Path, data: Any) -> None:
    """Write JSON, whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(data))
    temporary.replace(path)
