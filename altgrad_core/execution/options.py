"""Where and how a plan is run, and who watches. Nothing here enters a run's id."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from altgrad_core._files import default_cache
from altgrad_core.interfaces.executor import Job
from altgrad_core.results.run_directory import Status


@dataclass(frozen=True)
class RunOptions:
    """Where and how a plan is run. Nothing here enters a run's id."""

    runs: Path = Path("runs")
    device: str = "auto"
    workers: int | None = None
    threads: int | None = None
    """CPU threads of each run, 1 if not given. A run that was begun goes on with the number it began with."""
    timeout: float | None = None
    """Seconds for each run, and for loading the data."""
    stall_timeout: float | None = None
    """Seconds without a sign of life after which a run is ended; none for no limit."""
    retries: int = 0
    """How often a run that ends without a result is tried again, unless by its user's mistake."""
    oom_accumulate: int = 1
    """A run that is ``oom`` is tried again with each batch cut into twice as many parts, up to so many."""
    micro_batches: int = 1
    """The parts that batches of a run are cut into which was not begun; one that was keeps its own."""
    fail_fast: bool = False
    """Whether the first run without a result ends the suite."""
    only: tuple[str, ...] = ()
    """Beginnings of ids, or ``failed``: only these of the missing runs are run; all if empty."""
    executor: str = "local"
    executor_settings: Mapping[str, Any] = field(default_factory=dict)
    cache: Path = field(default_factory=default_cache)
    command: str = ""
    """What the user typed, for the record."""
    store: str = ""
    """The URL of a store that the runs are kept on as well; ``runs`` is then where they are made. See ``place_of``."""


class Observer(Protocol):
    """Sees a suite being run."""

    def message(self, text: str) -> None:
        """A line for the reader."""

    def begin(self, total: int, done: int) -> None:
        """The suite has ``total`` runs, ``done`` of them finished earlier."""

    def started(self, job: Job, max_steps: int) -> None:
        """A run's process was started."""

    def progress(self, job: Job, status: Status) -> None:
        """A running run's latest sign of life."""

    def tried_again(self, job: Job, status: Status, how: str) -> None:
        """A run ended without a result, and will be run again."""

    def finished(self, job: Job, status: Status) -> None:
        """A run has ended."""


def command_line() -> str:
    """What the user typed, quoted for a shell."""
    return shlex.join(["altgrad-bench", *sys.argv[1:]])
