"""What an executor must be: something that runs commands, each in a process of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LIFELINE = "ALTGRAD_LIFELINE"
"""Environment variable with the number of an inherited file descriptor: the reading end of a pipe whose
writing end the executor's process alone holds open. When that process is gone, however it ended, the
worker sees the end of the file and ends as well. A byte written there asks one worker for a checkpoint as soon as
it can write one; it then goes on."""


@dataclass(frozen=True)
class Job:
    """One command to execute: start it with ``environment`` added to the executor's own.

    Its standard input is ``/dev/null``, and what it prints goes to ``log.txt`` in ``directory``.
    """

    run_id: str
    label: str
    directory: Path
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    preload: tuple[str, ...] = ()
    """Modules that the command imports in any case. If it is ``python -P -m MODULE``, an executor may fork the
    job's process from one that has imported them, in this environment, and do so for every job that names
    the same. A module that cannot be imported there is left to the job to complain of."""
    stall_timeout: float | None = None
    """Seconds after which the job is to be ended if none of ``signs`` has changed; none for no limit."""
    signs: tuple[Path, ...] = ()
    """Files that the job writes to as long as it gets on."""
    fetches: bool = False
    """Whether the job brings and sends what it works on: where its directory is missing, an empty one will do."""


@dataclass(frozen=True)
class Exit:
    """How a job's process ended: its exit code (negative: killed by that signal), and whether time ran out.

    stalled:
        whether it was ended because it gave no sign of life for its ``stall_timeout``.
    failed:
        why there was no process to begin with; empty where there was one.
    """

    code: int
    timed_out: bool = False
    stalled: bool = False
    failed: str = ""


class Executor(ABC):
    """Runs jobs. One job's end never stops another."""

    @abstractmethod
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
        """Run every job, at most ``workers`` at once, each for at most ``timeout`` seconds.

        The callbacks are called from the calling thread; ``tick`` a few times a second while jobs run.
        On a KeyboardInterrupt, which ``tick`` raises when the user or a signal asks for the end, the
        children are ended and waited for, and the interrupt goes on. No child outlives the executor's
        process: an executor on the same machine gives each a :data:`LIFELINE`.
        """

    def workers(self, device: str, runs: int) -> int | None:
        """How many of ``runs`` to run at once where the user does not say; None: as many as this machine bears.

        device:
            on which they run, as the preparation of the data found it.
        """
        return None

    def close(self) -> None:  # noqa: B027  # few have anything to do
        """Let go of what was kept from one call of :meth:`execute` to the next; called when all is run."""
