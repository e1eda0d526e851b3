"""What a person sees while a suite runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from altgrad_core._text import plain
from altgrad_core.execution.options import Observer
from altgrad_core.interfaces.executor import Job
from altgrad_core.results.run_directory import Status

_PLAIN_SECONDS = 15.0
_COLOURS = {"ok": "green", "diverged": "yellow"}


class Display(Observer, Protocol):
    """An observer that is opened and closed."""

    def __enter__(self) -> Self:
        """Begin to draw."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing."""


def progress_display(console: Console) -> Display:
    """Bars if the console is a terminal, lines if not."""
    return BarDisplay(console) if console.is_terminal else LineDisplay(console)


class _Notes:
    """What the runs that ended left for the reader, said once at the end with how many said it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, status: Status) -> None:
        """Take in the notes of a run."""
        self._counts.update(status.notes)

    def print(self, say: Callable[[str], None]) -> None:
        """Say them."""
        for note, runs in self._counts.items():
            say(f"note: {note} ({runs} run{'' if runs == 1 else 's'})")


class LineDisplay:
    """One line per event, and one per run now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._total = self._done = 0
        self._said: dict[str, float] = {}
        self._notes = _Notes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._notes.print(self._print)

    def _print(self, text: str) -> None:
        self.console.print(plain(text), markup=False, highlight=False, soft_wrap=True)

    def message(self, text: str) -> None:
        """Print it."""
        self._print(text)

    def begin(self, total: int, done: int) -> None:
        """Say how much there is to do."""
        self._total, self._done = total, done
        self._print(
            f"{total} run{'s' * (total != 1)}, {done} finished earlier, {total - done} to go"
        )

    def started(self, job: Job, max_steps: int) -> None:
        """Say that it started."""
        self._said[job.run_id] = time.monotonic()
        self._print(f"start  {job.label}  ({job.run_id}, {max_steps} steps)")

    def progress(self, job: Job, status: Status) -> None:
        """Say how far it is, at most every fifteen seconds."""
        if time.monotonic() - self._said[job.run_id] >= _PLAIN_SECONDS:
            self._said[job.run_id] = time.monotonic()
            self._print(f"       {job.label}  step {status.step}/{status.max_steps}")

    def tried_again(self, job: Job, status: Status, how: str) -> None:
        """Say why, and how."""
        self.message(f"{job.label}: {status.status} ({status.message}); {how}")

    def finished(self, job: Job, status: Status) -> None:
        """Say how it ended."""
        self._done += 1
        self._notes.add(status)
        why = f": {status.message}" if status.message else ""
        counted = f"[{self._done}/{self._total}]"
        self._print(f"{status.status:<6} {job.label}  {counted} {status.seconds:.0f} s{why}")


class BarDisplay:
    """A bar for the suite and one for each run in progress."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._suite: TaskID | None = None
        self._runs: dict[str, TaskID] = {}
        self._notes = _Notes()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
        self._notes.print(self.message)

    def message(self, text: str) -> None:
        """Print it above the bars."""
        self._bars.console.print(plain(text), markup=False, highlight=False)

    def begin(self, total: int, done: int) -> None:
        """Draw the suite's bar."""
        if self._suite is not None:
            self._bars.remove_task(self._suite)
        self._suite = self._bars.add_task("suite", total=total, completed=done)

    def started(self, job: Job, max_steps: int) -> None:
        """Draw the run's bar."""
        self._runs[job.run_id] = self._bars.add_task(f"  {job.label}", total=max_steps)

    def progress(self, job: Job, status: Status) -> None:
        """Move the run's bar."""
        self._bars.update(self._runs[job.run_id], completed=status.step)

    def tried_again(self, job: Job, status: Status, how: str) -> None:
        """Say why, and how."""
        self.message(f"{job.label}: {status.status} ({status.message}); {how}")

    def finished(self, job: Job, status: Status) -> None:
        """Take the run's bar away and say how it ended."""
        self._bars.remove_task(self._runs.pop(job.run_id))
        if self._suite is not None:
            self._bars.advance(self._suite)
        self._notes.add(status)
        why = f": {status.message}" if status.message else ""
        word = f"{status.status:<8}", _COLOURS.get(status.status, "red")
        # in one call: what ends without a newline is drawn over by the bars
        line = Text.assemble(word, plain(f" {job.label}  {status.seconds:.0f} s{why}"))
        self._bars.console.print(line)
