"""What a tracker must be: a receiver of copies of a run's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altgrad_core.interfaces.monitor import Event


@dataclass(frozen=True)
class RunInfo:
    """Which run a tracker is told about. ``settings`` is the whole resolved spec as plain data."""

    id: str
    suite: str
    condition: str
    seed: int
    directory: Path
    settings: Mapping[str, Any]


class Tracker:
    """Receives metrics. Runs in a thread of its own: what it raises is recorded once, what hangs is left behind."""

    def ready(self) -> None:
        """Called once for a suite, before anything trains, in a process that is not a run's.

        Raise ``UserError`` where the tracker cannot work as it is set and the user can put it right
        (no login): nothing is run then. Anything else that it raises is said, and the runs begin.
        """

    def start(self, run: RunInfo) -> None:
        """Called first. An exception here switches the tracker off for the run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of one step, as in ``metrics.jsonl``."""

    def event(self, step: int, event: Event) -> None:
        """Something happened; ``event.alert`` asks for the reader's attention."""

    def finish(self, status: str, summary: Mapping[str, float]) -> None:
        """The run has ended with ``status``; ``summary`` holds its final metrics."""
