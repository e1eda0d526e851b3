"""Runs jobs as array jobs of Slurm, submitted through submitit.

Slurm places the tasks and queues them again at their time limit; a run is the same child process as under
``local``, which :mod:`altgrad_plugins.executors.node` starts and watches on its node. Tasks go on when this process
is gone: run again, the suite finds those that still wait or run, by the records that it left beside its runs.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from altgrad_core.errors import UserError
from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_plugins.executors.array_task import ArrayTask, begun, ended, read_end, write
from altgrad_plugins.executors.node import portable
from altgrad_plugins.executors.settings import SlurmSettings
from altgrad_plugins.executors.slurm_queue import NEVER, OVER, Queue, queue_of

_PAUSE_SECONDS = 0.1
_LAG_SECONDS = 30.0
"""How long a file of another machine may take to be seen here, on shared storage that caches names."""
_TIDY_SECONDS = 5.0
"""How long a task may take to end after its last run."""
_END_SECONDS = 60.0
"""How long tasks that were cancelled are waited for: Slurm kills what goes on for 30 seconds (KillWait)."""


class SlurmExecutor(Executor):
    """Array jobs of ``batch`` runs a task, ``workers`` tasks at once.

    The tasks are submitted from, and say how their runs ended in, a folder ``slurm`` beside the run directories.
    """

    def __init__(self, settings: SlurmSettings) -> None:
        self.settings = settings

    def workers(self, device: str, runs: int) -> int | None:
        """All of them, for Slurm to hold back; submitit's local processes as on any one machine."""
        return runs if self.settings.cluster == "slurm" else None

    def execute(
        self,
        jobs: Sequence[Job],
        *,
        workers: int,
        timeout: float | None,
        started: Callable[[Job], None],
        finished: Callable[[Job, Exit], None],
        tick: Callable[[], None],
    ) -> None:
        """Run every job; see :class:`~altgrad_core.interfaces.executor.Executor`.

        Raises ``UserError`` where Slurm refuses the tasks, or would never start them.
        """
        task = ArrayTask(Path.cwd(), sys.executable, timeout)
        lot = _Lot(self.settings, queue_of(self.settings), task, workers, started, finished)
        lot.take(list(map(portable, jobs)))
        try:
            while lot.unfinished:
                lot.submit()
                lot.look()
                tick()
                time.sleep(_PAUSE_SECONDS)
        except BaseException:
            lot.cancel()
            raise
        lot.tidy()


@dataclass
class _Watched:
    """A job in the hands of an array task."""

    job: Job
    task: str
    ends: Path
    started: bool = False


class _Lot:
    """The jobs of one call: those that wait here, and those that Slurm has."""

    def __init__(
        self,
        settings: SlurmSettings,
        queue: Queue,
        task: ArrayTask,
        workers: int,
        started: Callable[[Job], None],
        finished: Callable[[Job, Exit], None],
    ) -> None:
        self._settings, self._queue, self._task, self._workers = settings, queue, task, workers
        self._started, self._finished = started, finished
        self._waiting: deque[Job] = deque()
        self._watched: list[_Watched] = []
        self._newest: set[str] = set()
        """The tasks of the last array, of which ``_limit`` may run at once."""
        self._limit = 0
        self._begun: set[str] = set()
        """Tasks that have begun a job."""
        self._over: dict[str, float] = {}
        """Since when a task is known to be over, by its id."""
        self._folders: dict[Path, set[str]] = {}
        """Where tasks were submitted from, with their ids; less the folders that are worth a look."""
        self._looked = 0.0

    @property
    def unfinished(self) -> bool:
        """Whether a job has not ended yet."""
        return bool(self._waiting or self._watched)

    def take(self, jobs: Sequence[Job]) -> None:
        """Take the jobs in hand, or up where an earlier launcher left them with Slurm."""
        there = [job for job in jobs if _record(job).exists()] if self._queue.outlives else []
        states = self._queue.states() if there else {}
        if states is None:
            raise UserError(
                "squeue does not answer, and some of these runs were submitted before: without it they might be run "
                "twice. Try again when Slurm's controller is back."
            )
        for job in jobs:
            record = json.loads(_record(job).read_bytes()) if job in there else {}
            task, ends = record.get("task", ""), Path(record.get("ends", ""))
            if states.get(task, "COMPLETED") in OVER or ended(ends, job).exists():
                self._waiting.append(job)
            else:
                self._watched.append(_Watched(job, task, ends))

    def submit(self) -> None:
        """Submit what waits: to this machine as there is room; to Slurm in arrays.

        An array is followed by the next when less than half of the tasks that may run at once are left of it, and
        the limit of the new one grows as the old one's tasks end: no more run than may, and no place stays empty.
        """
        tasks = {one.task for one in self._watched}
        room = limit = self._workers - len(tasks)
        if self._queue.outlives:
            self._widen(tasks)
            room = self._settings.array if len(tasks) <= self._workers // 2 else 0
        if self._waiting and room > 0:
            self._submit(room, max(1, limit))

    def _widen(self, tasks: Collection[str]) -> None:
        """Let the last array have the places that older tasks have left."""
        newest = self._newest.intersection(tasks)
        limit = self._workers - len(self._newest.union(tasks) - self._newest)
        if newest and limit > self._limit:
            self._limit = limit
            self._queue.widen(min(newest), limit)

    def _submit(self, room: int, limit: int) -> None:
        """Submit up to ``room`` tasks, of which ``limit`` may run at once."""
        size = self._settings.batch
        jobs = [self._waiting.popleft() for _ in range(min(room * size, len(self._waiting)))]
        batches = [jobs[first : first + size] for first in range(0, len(jobs), size)]
        home = _record(jobs[0]).parent
        home.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=home))
        (ends := folder / "ends").mkdir()
        task = ArrayTask(self._task.folder, self._task.python, self._task.timeout, ends)
        try:
            tasks = self._queue.submit(task, batches, folder, limit)
        except UserError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._folders[folder] = self._newest = set(tasks)
        self._limit = limit
        for name, batch in zip(tasks, batches, strict=True):
            for job in batch:
                self._watched.append(_Watched(job, name, ends))
                write(_record(job), {"task": name, "ends": str(ends)})

    def look(self) -> None:
        """See, unless that was just done, which jobs have begun, ended, or been lost."""
        wait = self._settings.poll if self._queue.outlives else _PAUSE_SECONDS
        if time.monotonic() - self._looked < wait:
            return
        self._looked = time.monotonic()
        states = self._queue.states()
        for one in list(self._watched):
            if ended(one.ends, one.job).exists():
                self._end(one, read_end(one.ends, one.job))
                continue
            if not one.started and begun(one.ends, one.job).exists():
                self._begin(one)
            if states is not None:
                self._consider(one, states.get(one.task))

    def _consider(self, one: _Watched, state: str | None) -> None:
        """A job whose end is not written: is its task still there?"""
        if state is not None and state.startswith(NEVER):
            raise UserError(
                f"Slurm would never start job {one.task}: {state}. Ask for something else with --executor-set "
                "(partition, time, gpus, constraint, account)."
            )
        if state is not None and state not in OVER:
            self._over.pop(one.task, None)
            return
        lag = _LAG_SECONDS if self._queue.outlives else 1.0
        if time.monotonic() - self._over.setdefault(one.task, time.monotonic()) < lag:
            return
        if not one.started and one.task in self._begun:
            self._watched.remove(one)  # it is not this one that ended the task
            self._waiting.append(one.job)
            return
        self._folders.pop(one.ends.parent, None)
        self._end(one, _exit_of(state, one))

    def _begin(self, one: _Watched) -> None:
        one.started = True
        self._begun.add(one.task)
        self._started(one.job)

    def _end(self, one: _Watched, end: Exit) -> None:
        if not one.started:
            self._begin(one)
        if end.failed:
            self._folders.pop(one.ends.parent, None)
        self._watched.remove(one)
        _record(one.job).unlink(missing_ok=True)
        self._finished(one.job, end)

    def cancel(self) -> None:
        """End what is under way, take the rest out of the queue, and wait until it has ended."""
        tasks = {one.task for one in self._watched}
        self._queue.cancel(tasks)
        self._wait_for(tasks, _END_SECONDS)
        for one in self._watched:
            _record(one.job).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what submitting left behind, but for the logs of tasks that failed."""
        tasks = set().union(*self._folders.values())
        # a task whose time was over just as its last run ended is queued again, with nothing to do
        self._queue.cancel(self._wait_for(tasks, max(2 * self._settings.poll, _TIDY_SECONDS)))
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)  # a task may still write its last word

    def _wait_for(self, tasks: Collection[str], seconds: float) -> set[str]:
        """Wait until tasks are over; those that are not."""
        left, deadline = set(tasks), time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            if (states := self._queue.states()) is not None:
                left = {task for task in left if states.get(task, "COMPLETED") not in OVER}
            time.sleep(5 * _PAUSE_SECONDS if left else 0)
        return left


def _record(job: Job) -> Path:
    """The file that says which task has a job in hand."""
    return job.directory.parent / "slurm" / f"{job.run_id}.json"


def _exit_of(state: str | None, one: _Watched) -> Exit:
    """The end of a job whose task is over without having written it."""
    if state in ("TIMEOUT", "DEADLINE"):
        return Exit(-signal.SIGTERM, timed_out=True)
    if state in ("CANCELLED", "PREEMPTED"):
        return Exit(-signal.SIGTERM)
    if state == "OUT_OF_MEMORY":
        return Exit(-signal.SIGKILL)
    return Exit(
        127,
        failed=f"Slurm's job {one.task} ended without saying how the run did ({state or 'no longer known'}); its "
        f"log is in {one.ends.parent}",
    )
