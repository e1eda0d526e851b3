"""What an executor must be: something that runs commands, each in a process of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One run to execute: start ``command`` with ``environment`` added to the executor's own."""

    run_id: str
    label: str
    directory: Path
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Exit:
    """How a job's process ended: its exit code (negative: killed by that signal), and whether time ran out."""

    code: int
    timed_out: bool = False


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
        On KeyboardInterrupt the children are ended and waited for, and the interrupt goes on.
        """
