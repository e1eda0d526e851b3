"""Slurm's queue, and in its place submitit's processes on this machine: tasks go in, states come out."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import submitit

from altgrad_core.errors import UserError
from altgrad_core.interfaces.executor import Job
from altgrad_plugins.executors.array_task import ArrayTask
from altgrad_plugins.executors.settings import SlurmSettings

OVER = {
    *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL"),
    *("DEADLINE", "REVOKED", "PREEMPTED"),
}
"""States that a task does not leave again."""
NEVER = "NEVER"
"""The state of a task that would wait without end, with the reason behind it."""
_NEVER = {
    "BadConstraints",
    "PartitionConfig",
    "PartitionTimeLimit",
    "PartitionNodeLimit",
    "AccountNotAllowed",
}
"""Reasons for which a task would wait without end."""
_PATIENCE_SECONDS = 60.0

Batch = Sequence[Job]


class Queue(Protocol):
    """Where array tasks wait and run."""

    outlives: bool
    """Whether tasks go on without this process."""

    def submit(
        self, task: ArrayTask, batches: Sequence[Batch], folder: Path, limit: int
    ) -> list[str]:
        """Submit a task for each batch, of which ``limit`` may run at once: their ids. ``UserError`` if refused."""

    def states(self) -> Mapping[str, str] | None:
        """The states of this user's tasks by id, as far as they are known; None if nobody answers."""

    def widen(self, task: str, limit: int) -> None:
        """Let ``limit`` tasks run at once of the array that this one belongs to."""

    def cancel(self, tasks: Collection[str]) -> None:
        """End these tasks, or take them out of the queue."""


class SlurmQueue:
    """Slurm itself. It is asked with ``squeue``, which needs no accounting."""

    outlives = True

    def __init__(self, settings: SlurmSettings) -> None:
        self._settings = settings

    def submit(
        self, task: ArrayTask, batches: Sequence[Batch], folder: Path, limit: int
    ) -> list[str]:
        """See :class:`Queue`."""
        options = self._options(limit)
        kind = submitit.SlurmExecutor
        return _ids(_submitted(kind, self._settings, task, batches, folder, options))

    def _options(self, limit: int) -> dict[str, Any]:
        s = self._settings
        given = {
            "array_parallelism": limit,
            "signal_delay_s": s.notice,
            "partition": s.partition,
            "account": s.account,
            "qos": s.qos,
            "constraint": s.constraint,
            "setup": list(s.setup) or None,
            "additional_parameters": dict(s.options) or None,
            "job_name": "altgrad-bench",
            "time": s.time,
            "cpus_per_task": s.cpus,
            "mem": None if s.memory_gb is None else f"{s.memory_gb * 1000:.0f}M",
            "gpus_per_node": self._gpus() or None,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _gpus(self) -> int:
        """What was asked for; else one, where a node has any."""
        if self._settings.gpus is not None:
            return self._settings.gpus
        where = ("-p", self._settings.partition) if self._settings.partition else ()
        return int("gpu" in (_said("sinfo", "-h", "-o", "%G", *where) or ""))

    def states(self) -> Mapping[str, str] | None:
        """See :class:`Queue`."""
        shown = ("--states=all", "-r", "-h", "-o", "%i|%T|%r")
        said = _said("squeue", "-u", getpass.getuser(), *shown)
        if said is None:
            return None
        lines = [line.split("|") for line in said.splitlines() if line.count("|") == 2]
        return {
            task: f"{NEVER} ({reason})" if state == "PENDING" and reason in _NEVER else state
            for task, state, reason in lines
        }

    def widen(self, task: str, limit: int) -> None:
        """See :class:`Queue`."""
        array, _, _ = task.partition("_")
        _said("scontrol", "update", f"JobId={array}", f"ArrayTaskThrottle={limit}")

    def cancel(self, tasks: Collection[str]) -> None:
        """See :class:`Queue`."""
        if tasks:
            _said("scancel", *tasks)


class LocalQueue:
    """Submitit's own processes on this machine."""

    outlives = False

    def __init__(self, settings: SlurmSettings) -> None:
        self._settings = settings
        self._jobs: dict[str, submitit.Job[None]] = {}

    def submit(
        self, task: ArrayTask, batches: Sequence[Batch], folder: Path, limit: int
    ) -> list[str]:
        """See :class:`Queue`."""
        notice = {"timeout_min": self._settings.time, "signal_delay_s": self._settings.notice}
        jobs = _submitted(submitit.LocalExecutor, self._settings, task, batches, folder, notice)
        self._jobs |= {job.job_id: job for job in jobs}
        return _ids(jobs)

    def states(self) -> Mapping[str, str]:
        """See :class:`Queue`."""
        return {name: "COMPLETED" if job.done() else "RUNNING" for name, job in self._jobs.items()}

    def widen(self, task: str, limit: int) -> None:
        """Nothing: these are submitted one by one, as there is room."""

    def cancel(self, tasks: Collection[str]) -> None:
        """See :class:`Queue`."""
        for task in tasks:
            self._jobs[task].cancel()


def queue_of(settings: SlurmSettings) -> Queue:
    """The queue that the settings name."""
    return SlurmQueue(settings) if settings.cluster == "slurm" else LocalQueue(settings)


def _submitted(
    kind: type[submitit.Executor],
    settings: SlurmSettings,
    task: ArrayTask,
    batches: Sequence[Batch],
    folder: Path,
    options: Mapping[str, Any],
) -> list[submitit.Job[None]]:
    try:
        executor = kind(folder, max_num_timeout=settings.requeues)
        executor.update_parameters(**options)
        jobs: list[submitit.Job[None]] = executor.map_array(task, batches)
    except (RuntimeError, OSError) as error:
        raise UserError(f"the jobs cannot be submitted: {str(error).strip()}") from error
    return jobs


def _ids(jobs: Sequence[submitit.Job[None]]) -> list[str]:
    return [job.job_id for job in jobs]


def _said(*command: str) -> str | None:
    """What a command of Slurm's prints; None if it fails, as where no controller answers, or there is no Slurm."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return None
    return done.stdout if done.returncode == 0 else None
