"""Runs jobs as child processes on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.interfaces.plugin import NoSettings

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 5.0


@dataclass
class _Child:
    job: Job
    process: subprocess.Popen[bytes]
    deadline: float
    timed_out: bool = False


class LocalExecutor(Executor):
    """``workers`` child processes at a time; output goes to ``log.txt`` in the job's directory.

    Each child leads a process group of its own, so that a timeout or an interrupt ends what it started
    as well: SIGTERM first, SIGKILL five seconds later.
    """

    def __init__(self, settings: NoSettings) -> None:
        self.settings = settings

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
        children: list[_Child] = []
        try:
            while waiting or children:
                while waiting and len(children) < workers:
                    job = waiting.pop()
                    children.append(_start(job, timeout))
                    started(job)
                time.sleep(_POLL_SECONDS)
                for child in list(children):
                    if (code := _poll(child)) is not None:
                        children.remove(child)
                        finished(child.job, Exit(code, child.timed_out))
                tick()
        finally:
            for child in children:
                _end(child)


def _start(job: Job, timeout: float | None) -> _Child:
    with (job.directory / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(job.environment),
            start_new_session=True,
        )
    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
    return _Child(job, process, deadline)


def _poll(child: _Child) -> int | None:
    code = child.process.poll()
    if code is None and time.monotonic() > child.deadline:
        child.timed_out = True
        code = _end(child)
    return code


def _end(child: _Child) -> int:
    """End a child and everything that it started; return its exit code."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
            os.killpg(child.process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.process.wait(_GRACE_SECONDS)
    return child.process.wait()
