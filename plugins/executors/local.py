"""Runs jobs as child processes on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from altgrad_core.interfaces.executor import LIFELINE, Executor, Exit, Job
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
    as well: SIGTERM first, SIGKILL five seconds later. A pipe tells it when this process is gone.
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
        lifeline, held = os.pipe()
        try:
            while waiting or children:
                while waiting and len(children) < workers:
                    job = waiting.pop()
                    children.append(_start(job, timeout, lifeline))
                    started(job)
                time.sleep(_POLL_SECONDS)
                for child in list(children):
                    if (code := _poll(child)) is not None:
                        children.remove(child)
                        finished(child.job, Exit(code, child.timed_out))
                tick()
        finally:
            _end(children)
            os.close(held)
            os.close(lifeline)


def _start(job: Job, timeout: float | None, lifeline: int) -> _Child:
    with (job.directory / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(job.environment) | {LIFELINE: str(lifeline)},
            pass_fds=(lifeline,),
            start_new_session=True,
        )
    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
    return _Child(job, process, deadline)


def _poll(child: _Child) -> int | None:
    code = child.process.poll()
    if code is None and time.monotonic() > child.deadline:
        child.timed_out = True
        _end([child])
        code = child.process.returncode
    return code


def _end(children: Sequence[_Child]) -> None:
    """End the children together, with everything that they started, and wait for them."""
    _signal(children, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline - time.monotonic()))
    while _signal(children, 0) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    _signal(children, signal.SIGKILL)
    for child in children:
        child.process.wait()


def _signal(children: Sequence[_Child], number: int) -> bool:
    """Send a signal to the children's groups (0 sends none); whether any group has a member left."""
    there = False
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, number)
            there = True
    return there
