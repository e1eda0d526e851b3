"""Runs jobs as child processes on this machine."""

from __future__ import annotations

import select
import signal
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.interfaces.plugin import NoSettings
from altgrad_plugins.executors.children import Child, Kept

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 5.0


@dataclass
class _Running:
    job: Job
    child: Child
    deadline: float
    timed_out: bool = False
    stalled: bool = False
    signs: tuple[tuple[int, int] | None, ...] = ()
    seen: float = field(default_factory=time.monotonic)
    looked: float = field(default_factory=time.monotonic)

    def is_silent(self) -> bool:
        """Whether there was no sign of life for too long; changes are looked for once a second.

        The times of files are compared with one another only: clocks may be set.
        """
        limit, now = self.job.stall_timeout, time.monotonic()
        if limit is None or now - self.looked < min(1.0, limit / 4):
            return False
        self.looked = now
        signs = tuple(map(_state_of, self.job.signs))
        if signs != self.signs:
            self.signs, self.seen = signs, now
        return now - self.seen > limit


def _state_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class LocalExecutor(Executor):
    """``workers`` child processes at a time; output goes to ``log.txt`` in the job's directory.

    Jobs that say what they import are forked from a process that has imported it
    (:mod:`altgrad_plugins.executors.template`); all others are started afresh. Each child leads a process
    group of its own, so that a timeout, a stall or an interrupt ends what it started as well: SIGTERM first,
    SIGKILL five seconds later. A pipe tells it when this process is gone.
    """

    forks = True

    def __init__(self, settings: NoSettings) -> None:
        self.settings = settings
        self._kept = Kept()
        weakref.finalize(self, self._kept.close)

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
        """Run every job; see :class:`~altgrad_core.interfaces.executor.Executor`."""
        waiting = list(reversed(jobs))
        running: list[_Running] = []
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    job = waiting.pop()
                    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
                    try:
                        child = self._kept.start(job, fork=self.forks)
                    except OSError as error:
                        # its folder is gone, or there is no room for a process
                        started(job)
                        finished(job, _no_process(error))
                        continue
                    running.append(_Running(job, child, deadline))
                    started(job)
                _wait_for_news(running)
                for one in list(running):
                    if (end := _poll(one)) is not None:
                        running.remove(one)
                        finished(one.job, end)
                tick()
        finally:
            _end([one.child for one in running])

    def ask_to_save(self) -> None:
        """Ask a job that runs for a checkpoint."""
        self._kept.ask_to_save()

    def close(self) -> None:
        """End the processes that jobs were forked from."""
        self._kept.close()


class FreshExecutor(LocalExecutor):
    """Every job in an interpreter of its own, which imports everything anew."""

    forks = False


def _wait_for_news(running: Sequence[_Running]) -> None:
    """Wait until there may be something to do, at most a tenth of a second."""
    poll = select.poll()
    for one in running:
        for place in one.child.wait_on():
            poll.register(place, select.POLLIN)
    poll.poll(1000 * _POLL_SECONDS)


def _poll(one: _Running) -> Exit | None:
    try:
        code = one.child.poll()
    except OSError as error:  # as at its start, where that was put off
        return _no_process(error)
    if code is None:
        one.timed_out = time.monotonic() > one.deadline
        one.stalled = not one.timed_out and one.is_silent()
        if one.timed_out or one.stalled:
            _end([one.child])
            code = one.child.poll()
    return None if code is None else Exit(code, one.timed_out, one.stalled)


def _no_process(error: OSError) -> Exit:
    return Exit(127, failed=f"no process could be started for it: {error}")


def _end(children: Sequence[Child]) -> None:
    """End the children together, with everything that they started, and wait for them."""
    _signal(children, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline:
        # Each is asked: a process that nobody has waited for still counts as one of its group.
        ended = [child.poll() is not None for child in children]
        if all(ended) and not _signal(children, 0):
            return
        time.sleep(_POLL_SECONDS)
    _signal(children, signal.SIGKILL)
    for child in children:
        child.reap()


def _signal(children: Sequence[Child], number: int) -> bool:
    """Send a signal to the children's groups (0 sends none); whether any group has a member left."""
    members = [child.signal(number) for child in children]
    return any(members)
