"""The jobs of a suite while they run: who is told, and how each end becomes a status.

Another suite may run some of the same cells at the same time. What it has in hand is left to it and
waited for; what it leaves without a result is run here.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from altgrad_core.execution.interruption import Interrupted, signals_held_back
from altgrad_core.execution.options import Observer
from altgrad_core.execution.outcome import HELD, settle, status_after_exit
from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.results.run_directory import (
    RunDirectory,
    RunHeld,
    Status,
    is_running,
)

_PROGRESS_SECONDS = 1.0
_POLL_SECONDS = 0.2
_TRIES = 10
"""Times that a job may find its run in other hands; one that says so more often is not believed."""


def run_jobs(
    executor: Executor,
    jobs: Sequence[Job],
    directories: Mapping[str, RunDirectory],
    steps: Mapping[str, int],
    observer: Observer,
    *,
    workers: int,
    timeout: float | None,
) -> list[str]:
    """Run the jobs until each has ended, here or elsewhere; the messages of users' mistakes.

    Whatever ends it early, a signal among others, leaves a status for each run that was under way.
    """
    with signals_held_back() as check:
        watch = _Watch(directories, steps, observer, check)
        try:
            while jobs:
                executor.execute(
                    jobs,
                    workers=workers,
                    timeout=timeout,
                    started=watch.started,
                    finished=watch.finished,
                    tick=watch.tick,
                )
                jobs = watch.left_by_others()
        except BaseException as end:
            watch.abandon(end)
            raise
    return watch.mistakes


class _Watch:
    """What the executor reports, passed on to the run directories and the observer."""

    def __init__(
        self,
        directories: Mapping[str, RunDirectory],
        steps: Mapping[str, int],
        observer: Observer,
        check: Callable[[], None],
    ) -> None:
        self._directories, self._steps = directories, steps
        self._observer, self._check = observer, check
        self._running: dict[str, Job] = {}
        self._elsewhere: dict[str, Job] = {}
        self._tries: Counter[str] = Counter()
        self._last = 0.0
        self.mistakes: list[str] = []

    def started(self, job: Job) -> None:
        """A process was started."""
        self._running[job.run_id] = job
        self._tries[job.run_id] += 1
        if self._tries[job.run_id] == 1:
            self._observer.started(job, self._steps[job.run_id])

    def finished(self, job: Job, end: Exit) -> None:
        """A process has ended: write the status, unless the run is in other hands."""
        directory = self._directories[job.run_id]
        held = end.code == HELD and self._tries[job.run_id] < _TRIES
        if not held:
            try:
                status = settle(directory, partial(status_after_exit, directory, end))
            except RunHeld:
                held = True
        del self._running[job.run_id]
        if held:
            self._elsewhere[job.run_id] = job
            return
        if end.code == 2:
            self.mistakes.append(status.message)
        self._observer.finished(job, status)

    def tick(self) -> None:
        """Raise what is asked for by a signal; about once a second, report the runs' progress."""
        self._check()
        if time.monotonic() - self._last >= _PROGRESS_SECONDS:
            self._last = time.monotonic()
            for job in (*self._running.values(), *self._elsewhere.values()):
                self._observer.progress(job, self._directories[job.run_id].status())

    def left_by_others(self) -> list[Job]:
        """Wait for the runs in other hands; the jobs that were left without a result."""
        if self._elsewhere:
            labels = ", ".join(job.label for job in self._elsewhere.values())
            self._observer.message(f"waiting for runs that another process has in hand: {labels}")
        left: list[Job] = []
        while self._elsewhere and not left:
            self.tick()
            for job in list(self._elsewhere.values()):
                directory = self._directories[job.run_id]
                if is_running(directory):
                    continue
                del self._elsewhere[job.run_id]
                if directory.has_result():
                    self._observer.finished(job, directory.status())
                else:
                    left.append(job)
            time.sleep(_POLL_SECONDS)
        return left

    def abandon(self, end: BaseException) -> None:
        """Write the status of the runs whose processes were ended with the suite."""
        for job in self._running.values():
            directory = self._directories[job.run_id]
            with contextlib.suppress(RunHeld):  # another process has it: its status is not ours
                settle(directory, partial(_killed, directory, end))


def _killed(directory: RunDirectory, end: BaseException) -> Status:
    if isinstance(end, Interrupted) and end.number != signal.SIGINT:
        why = str(end)
    elif isinstance(end, KeyboardInterrupt):
        why = "interrupted by the user"
    else:
        why = f"the suite ended with {type(end).__name__}: {end}"
    return directory.status().model_copy(update={"status": "killed", "message": why})
