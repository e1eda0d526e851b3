"""How far the cells of a suite are: for ``altgrad-bench status`` and the live page. Only statuses are read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from altgrad_core.locks.lock import is_running
from altgrad_core.results.kept import PlannedCell
from altgrad_core.results.run_directory import FINISHED, RunDirectory
from altgrad_core.results.stored import read_plan

_SILENT = 30.0
"""Seconds without a sign of life after which a page looks whether a run's process is there."""
WAITING = ("pending", "skipped")
_UNDER_WAY = ("running", "interrupted")


@dataclass(frozen=True)
class Progress:
    """One cell of the plan: its status, and how far it is."""

    cell: PlannedCell
    status: str
    step: int = 0
    max_steps: int = 0
    seconds: float = 0.0
    age: float | None = None
    """Seconds since the last sign of life; None where there was none."""
    message: str = ""

    @property
    def share(self) -> float:
        """Of the steps, 0 to 1; 1 for a run that has ended, whatever its end."""
        if self.under_way:
            return min(1.0, self.step / self.max_steps) if self.max_steps else 0.0
        return float(self.known)

    @property
    def under_way(self) -> bool:
        """Whether it was begun and has not ended."""
        return self.status in _UNDER_WAY

    @property
    def known(self) -> bool:
        """Whether there is a run directory."""
        return self.status not in WAITING

    @property
    def trouble(self) -> bool:
        """Whether the run has no result, and is not on its way to one."""
        return self.status not in (*FINISHED, "running", *WAITING)

    @property
    def place(self) -> int:
        """Its place on a page that is watched."""
        order = [*_UNDER_WAY, "", "ok", *WAITING]
        return order.index(self.status if self.status in order else "")


def read_progress(folder: Path, *, watched: bool = False) -> list[Progress]:
    """Every cell of the plan in ``folder``, in the plan's order.

    For a page that is ``watched`` what is under way comes first, then all trouble, and whether a run's
    process is there is looked up only if it has been silent. Raises ``UserError`` if the plan cannot
    be read.
    """
    silent = _SILENT if watched else 0.0
    found = [_progress(folder, cell, time.time(), silent) for cell in read_plan(folder).cells]
    return sorted(found, key=lambda one: one.place) if watched else found


def _progress(folder: Path, cell: PlannedCell, now: float, silent: float) -> Progress:
    if cell.skip is not None:
        return Progress(cell, "skipped", message=cell.skip)
    if cell.id is None:
        return Progress(cell, "pending", message="its learning rate is tuned first")
    directory = RunDirectory(folder / cell.id)
    status = directory.status()
    name, message = str(status.status), status.message
    age = max(0.0, now - status.updated) if status.updated is not None else None
    if name == "running" and (age is None or age > silent) and not is_running(directory.lock):
        name, message = "interrupted", "its process is gone; run the suite again to go on"
    return Progress(cell, name, status.step, status.max_steps, status.seconds, age, message)


def summary(found: Sequence[Progress]) -> str:
    """``7 of 12 runs have ended (6 ok, 1 diverged); 2 running, 3 pending.``"""
    counts = Counter(one.status for one in found)
    under_way = [name for name in (*_UNDER_WAY, *WAITING) if counts[name]]
    ended = {name: n for name, n in counts.items() if name not in under_way}
    planned = len(found) - counts["skipped"]
    text = f"{sum(ended.values())} of {planned} run{'' if planned == 1 else 's'} have ended"
    if ended:
        text += f" ({', '.join(f'{n} {name}' for name, n in ended.items())})"
    rest = ", ".join(f"{counts[name]} {name}" for name in under_way)
    return f"{text}; {rest}." if rest else f"{text}."
