"""Workers that share one process forked from one that has imported torch: milliseconds instead of seconds each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from altgrad_core.interfaces import Executor, Exit, Job, NoSettings


class Forked(Executor):
    """A child does one job after the other; ``workers`` is not looked at, time does not run out."""

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
        """Run every job; see :class:`Executor`."""
        from altgrad_core.execution import ready, worker  # noqa: F401  # what every run needs

        waiting = list(jobs)
        while waiting:
            codes, theirs = os.pipe()
            child = os.fork()
            if not child:
                os.close(codes)
                for job in waiting:
                    os.write(theirs, bytes([_work(worker.main, job)]))
                os._exit(0)
            os.close(theirs)
            with os.fdopen(codes, "rb", buffering=0) as said:
                started(waiting[0])
                while code := said.read(1):
                    finished(waiting.pop(0), Exit(code[0]))
                    tick()
                    if waiting:
                        started(waiting[0])
            _, status = os.waitpid(child, 0)
            if waiting:  # it is the end of the child as well; another does the rest
                finished(waiting.pop(0), Exit(os.waitstatus_to_exitcode(status)))
                tick()


def _work(main: Callable[[list[str]], int], job: Job) -> int:
    """The worker's entry point, as its command would call it."""
    os.environ.update(job.environment)
    log = os.open(job.directory / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    try:
        place = job.command.index("altgrad_core.execution.worker")
        return main(list(job.command[place + 1 :]))
    except BaseException as error:  # the child of a fork must not return into its parent's code
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
