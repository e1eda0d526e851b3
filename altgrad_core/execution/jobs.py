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
from dataclasses import dataclass, field
from functools import partial

from altgrad_core._text import plain
from altgrad_core.errors import UserError
from altgrad_core.execution.interruption import Interrupted, signals_held_back
from altgrad_core.execution.options import Observer
from altgrad_core.execution.outcome import HELD, how_it_ended, settle, status_after_exit
from altgrad_core.execution.plan_file import HERE, SuiteHold
from altgrad_core.execution.splitting import Splitter, parts_of
from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.locks.lock import RunHeld
from altgrad_core.results.run_directory import FINISHED, RunDirectory, Status

_PROGRESS_SECONDS = 1.0
_POLL_SECONDS = 0.2
_NEVER = Splitter()
_TRIES = 10
"""Times that a job may find its run in other hands; one that says so more often is not believed."""


@dataclass(frozen=True)
class Policy:
    """What is done about a run that ends without a result.

    retries:
        how often it is run again, once all others had their turn; not after a user's mistake, which
        would be the same again.
    fail_fast:
        whether the suite ends with it.
    """

    retries: int = 0
    fail_fast: bool = False


@dataclass
class Ended:
    """How jobs ended: the status of each by run id, and the messages of users' mistakes."""

    statuses: dict[str, Status] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)


class FailedFast(KeyboardInterrupt):
    """A run has no result, and the suite is to end with it."""


def run_jobs(
    executor: Executor,
    jobs: Sequence[Job],
    directories: Mapping[str, RunDirectory],
    steps: Mapping[str, int],
    observer: Observer,
    *,
    workers: int,
    timeout: float | None,
    policy: Policy = Policy(),
    splitter: Splitter = _NEVER,
    reopen: Callable[[str], None] = lambda run_id: None,
    hold: SuiteHold = HERE,
) -> Ended:
    """Run the jobs until each has ended, here or elsewhere.

    Whatever ends it early, a signal among others, leaves a status for each run that was under way.

    splitter:
        what a run for which there was no memory is tried again with, beside its retries.
    reopen:
        makes the run directory of an id again, before its run is tried again.
    hold:
        knows of runs in other hands, and of those that were made elsewhere.
    """
    with signals_held_back() as check:
        watch = _Watch(directories, steps, observer, check, policy, splitter, hold)
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
                jobs = watch.to_do(reopen)
        except FailedFast as end:
            watch.abandon(end)
        except BaseException as end:
            watch.abandon(end)
            raise
    return watch.ended


class _Watch:
    """What the executor reports, passed on to the run directories and the observer."""

    def __init__(
        self,
        directories: Mapping[str, RunDirectory],
        steps: Mapping[str, int],
        observer: Observer,
        check: Callable[[], None],
        policy: Policy,
        splitter: Splitter,
        hold: SuiteHold,
    ) -> None:
        self._directories, self._steps, self._hold = directories, steps, hold
        self._observer, self._check, self._policy = observer, check, policy
        self._splitter = splitter
        self._running: dict[str, Job] = {}
        self._elsewhere: dict[str, Job] = {}
        self._again: list[Job] = []
        self._tries: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._told: set[str] = set()
        self._failed = ""
        self._last = 0.0
        self.ended = Ended()

    def started(self, job: Job) -> None:
        """A process was started."""
        self._running[job.run_id] = job
        self._tries[job.run_id] += 1
        if job.run_id not in self._told:
            self._told.add(job.run_id)
            self._observer.started(job, self._steps[job.run_id])

    def finished(self, job: Job, end: Exit) -> None:
        """A process has ended: write the status, unless the run is in other hands."""
        believed = end.code == HELD and self._tries[job.run_id] < _TRIES
        status = None if believed else self._settled(job, end)
        del self._running[job.run_id]
        if status is None:
            self._elsewhere[job.run_id] = job
        elif status.status == "oom" and (smaller := self._splitter.halved(job)) is not None:
            which = f"tried again with batches in {parts_of(smaller)} parts"
            self._try_again(smaller, status, which)
        elif self._is_tried_again(job, status, end):
            self._retries[job.run_id] += 1
            which = f"retry {self._retries[job.run_id]} of {self._policy.retries}"
            self._try_again(job, status, which)
        else:
            if end.code == 2:
                self.ended.mistakes.append(status.message)
            self._has_ended(job, status)

    def _try_again(self, job: Job, status: Status, which: str) -> None:
        self._tries[job.run_id] = 0
        self._again.append(job)
        self._observer.tried_again(job, status, which)

    def _settled(self, job: Job, end: Exit) -> Status | None:
        """The status of a run whose process has ended; None if another process took it up."""
        directory = self._directories[job.run_id]
        self._hold.ended(directory)
        try:
            return settle(directory, partial(status_after_exit, directory, end))
        except RunHeld:
            return None
        except (UserError, OSError) as error:  # its directory is gone: that ends no other run
            why = f"{how_it_ended(end)}, and its status cannot be written: {error}"
            return directory.status().model_copy(update={"status": "error", "message": plain(why)})

    def _is_tried_again(self, job: Job, status: Status, end: Exit) -> bool:
        left = self._retries[job.run_id] < self._policy.retries
        return left and status.status not in FINISHED and end.code != 2

    def _has_ended(self, job: Job, status: Status) -> None:
        self.ended.statuses[job.run_id] = status
        self._observer.finished(job, status)
        if self._policy.fail_fast and status.status not in FINISHED:
            self._failed = self._failed or job.label

    def tick(self) -> None:
        """Raise what is asked for by a signal; about once a second, report the runs' progress."""
        self._check()
        if self._failed:
            raise FailedFast(f"ended with the suite, since {self._failed} failed (--fail-fast)")
        if time.monotonic() - self._last >= _PROGRESS_SECONDS:
            self._last = time.monotonic()
            for job in (*self._running.values(), *self._elsewhere.values()):
                self._observer.progress(job, self._directories[job.run_id].status())

    def to_do(self, reopen: Callable[[str], None]) -> list[Job]:
        """What is to be run again; if nothing, what others leave without a result, once they are done."""
        if self._failed:
            return []
        again, self._again = self._again, []
        for job in again:
            try:
                reopen(job.run_id)
            except (UserError, OSError) as error:
                self._observer.message(f"{job.label}: its folder cannot be made again: {error}")
        return again or self._left_by_others()

    def _left_by_others(self) -> list[Job]:
        if self._elsewhere:
            labels = ", ".join(job.label for job in self._elsewhere.values())
            self._observer.message(f"waiting for runs that another process has in hand: {labels}")
        left: list[Job] = []
        while self._elsewhere and not left:
            self.tick()
            for job in list(self._elsewhere.values()):
                directory = self._directories[job.run_id]
                done = directory.has_result()
                if not done and self._hold.is_running(directory):
                    continue
                del self._elsewhere[job.run_id]
                if done or directory.has_result():
                    self._has_ended(job, directory.status())
                else:
                    left.append(job)
            time.sleep(_POLL_SECONDS)
        return left

    def abandon(self, end: BaseException) -> None:
        """Write the status of the runs whose processes were ended with the suite."""
        for job in self._running.values():
            directory = self._directories[job.run_id]
            self._hold.ended(directory)
            # Held by another process, its status is not ours; gone, it has none.
            with contextlib.suppress(UserError, OSError):
                settle(directory, partial(_killed, directory, end))


def _killed(directory: RunDirectory, end: BaseException) -> Status:
    if isinstance(end, FailedFast) or (
        isinstance(end, Interrupted) and end.number != signal.SIGINT
    ):
        why = str(end)
    elif isinstance(end, KeyboardInterrupt):
        why = "interrupted by the user"
    else:
        why = f"the suite ended with {type(end).__name__}: {end}"
    return directory.status().model_copy(update={"status": "killed", "message": why})
