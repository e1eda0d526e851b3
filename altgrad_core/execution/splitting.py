"""Runs for which there was no memory, tried again with each batch cut into more parts (``--oom-accumulate``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from altgrad_core.errors import UserError
from altgrad_core.interfaces.executor import Job
from altgrad_core.results.attempts import parts_of_batches
from altgrad_core.results.objects import read_environment
from altgrad_core.results.run_directory import RunDirectory

_OPTION = "--micro-batches"


@dataclass(frozen=True)
class Splitter:
    """Cuts the batches of a job into twice as many parts.

    most:
        parts that a batch may be cut into; 1 leaves every job as it is.
    sizes:
        run id -> examples in a batch, which cannot be cut into more.
    """

    most: int = 1
    sizes: Mapping[str, int] | None = None

    def halved(self, job: Job) -> Job | None:
        """The job with parts half as large; None where they may not be smaller."""
        parts = 2 * parts_of(job)
        if parts > min(self.most, (self.sizes or {}).get(job.run_id, self.most)):
            return None
        return with_parts(job, parts)


def parts_of(job: Job) -> int:
    """How many parts the worker of a job cuts its batches into."""
    command = job.command
    return int(command[command.index(_OPTION) + 1]) if _OPTION in command else 1


def with_parts(job: Job, parts: int) -> Job:
    """The job whose worker cuts batches into ``parts``."""
    command = list(job.command)
    if _OPTION in command:
        at = command.index(_OPTION)
        del command[at : at + 2]
    more = [_OPTION, str(parts)] if parts > 1 else []
    return replace(job, command=(*command, *more))


def parts_on_record(directory: RunDirectory) -> int:
    """The parts that a run which can go on from a checkpoint was last made with; 1 for any other."""
    if not directory.checkpoint.exists():
        return 1
    try:
        return parts_of_batches(read_environment(directory.environment))
    except UserError:  # the run that is made anew writes it anew
        return 1
