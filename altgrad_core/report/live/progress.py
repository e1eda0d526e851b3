"""How far the cells of a suite are. Cheap: only statuses are read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from altgrad_core.report.words import counted
from altgrad_core.results.run_directory import FINISHED, RunDirectory, is_running
from altgrad_core.results.stored import PlannedCell, read_plan

_SILENT = 30.0
"""Seconds without a sign of life after which it is checked whether a run's process is there."""
WAITING = ("pending", "skipped")
_UNDER_WAY = ("running", "interrupted")
_LAST = ("ok", "pending", "skipped")
"""What is under way comes first, then all trouble, then these."""


@dataclass(frozen=True)
class Progress:
    """One cell of the plan: its status, and how far it is."""

    cell: PlannedCell
    status: str
    step: int = 0
    max_steps: int = 0
    seconds: float = 0.0
    age: float | None = None
    """Seconds since the last sign of life; None where the run is not under way."""
    message: str = ""

    @property
    def share(self) -> float:
        """Of the steps, 0 to 1; 1 for a run that has ended, whatever its end."""
        if self.status in _UNDER_WAY:
            return min(1.0, self.step / self.max_steps) if self.max_steps else 0.0
        return float(self.known)

    @property
    def known(self) -> bool:
        """Whether there is a run directory."""
        return self.status not in WAITING

    @property
    def trouble(self) -> bool:
        """Whether the run has no result, and is not on its way to one."""
        return self.status not in (*FINISHED, "running", *WAITING)


def read_progress(folder: Path, now: float | None = None) -> list[Progress]:
    """Every cell of the plan in ``folder``: what is under way first, then trouble, then the rest.

    Raises ``UserError`` if the plan cannot be read.
    """
    plan = read_plan(folder)
    moment = time.time() if now is None else now
    return sorted((_progress(folder, cell, moment) for cell in plan.cells), key=_place)


def summary(found: Sequence[Progress]) -> str:
    """``7 of 12 runs have ended (6 ok, 1 diverged); 2 running, 3 pending.``"""
    counts = Counter(one.status for one in found)
    under_way = [name for name in (*_UNDER_WAY, *WAITING) if counts[name]]
    ended = {name: n for name, n in counts.items() if name not in under_way}
    planned = len(found) - counts["skipped"]
    text = f"{sum(ended.values())} of {counted(planned, 'run')} have ended"
    if ended:
        text += f" ({', '.join(f'{n} {name}' for name, n in ended.items())})"
    rest = ", ".join(f"{counts[name]} {name}" for name in under_way)
    return f"{text}; {rest}." if rest else f"{text}."


def _progress(folder: Path, cell: PlannedCell, now: float) -> Progress:
    if cell.skip is not None or cell.id is None:
        return Progress(cell, "skipped", message=cell.skip or "")
    directory = RunDirectory(folder / cell.id)
    status = directory.status()
    name, message, age = str(status.status), status.message, None
    if name == "running":
        age = max(0.0, now - status.updated) if status.updated is not None else None
        if (age is None or age > _SILENT) and not is_running(directory):
            name, message = "interrupted", "its process is gone; run the suite again to go on"
    return Progress(cell, name, status.step, status.max_steps, status.seconds, age, message)


def _place(one: Progress) -> int:
    if one.status in _UNDER_WAY:
        return _UNDER_WAY.index(one.status)
    return len(_UNDER_WAY) + 1 + _LAST.index(one.status) if one.status in _LAST else len(_UNDER_WAY)
