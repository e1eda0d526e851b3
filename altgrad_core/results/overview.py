"""How far the cells of a suite are, for ``altgrad-bench status`` and the live page.

Cheap: only statuses are read.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from altgrad_core.locks.lock import is_running
from altgrad_core.results.kept import PlannedCell
from altgrad_core.results.run_directory import FINISHED, RunDirectory
from altgrad_core.results.stored import read_plan

_SILENT = 30.0
"""Seconds without a sign of life after which a page looks whether a run's process is there."""
_WATCH_SECONDS = 2.0
WAITING = ("pending", "skipped")
_UNDER_WAY = ("running", "interrupted")
_COLOURS = {"ok": "green", "running": "cyan", "diverged": "yellow", **dict.fromkeys(WAITING, "dim")}
_TOLD = ("status", "step", "max_steps", "seconds", "age", "message")
_NUMBERS = ("seed", "step", "seconds")
_HEADINGS = ("condition", "seed", "id", "status", "step", "seconds", "last sign of life", "")


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


def status_data(folder: Path, name: str) -> dict[str, Any]:
    """The suite in ``folder``, shown as ``name``, as plain data: a row per cell, and how many are how far."""
    found = read_progress(folder)
    return {
        "suite": read_plan(folder).suite,
        "folder": name,
        "counts": dict(Counter(one.status for one in found)),
        "cells": [
            {
                **{name: getattr(one.cell, name) for name in ("condition", "seed", "id")},
                **{name: getattr(one, name) for name in _TOLD},
            }
            for one in found
        ],
    }


def watch_status(folders: Sequence[tuple[Path, str]], console: Console) -> bool:
    """Show the suites anew every few seconds until all their runs have ended; whether each has a result.

    On a terminal a page in place; elsewhere a line whenever something has changed.
    """
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    said = ""
    with live or contextlib.nullcontext():
        while True:
            every = [(folder, name, read_progress(folder)) for folder, name in folders]
            if live is not None:
                parts = [_status_table(folder, name, found) for folder, name, found in every]
                live.update(
                    Group(*parts, *(Text(summary(found)) for *_, found in every)), refresh=True
                )
            elif said != (now := " ".join(summary(found) for *_, found in every)):
                console.print(now, markup=False, highlight=False, soft_wrap=True)
                said = now
            found = [one for *_, found in every for one in found if one.status != "skipped"]
            if not any(one.status in ("pending", "running") for one in found):
                return all(one.status in FINISHED for one in found)
            time.sleep(_WATCH_SECONDS)


def print_status(folder: Path, name: str, console: Console) -> None:
    """Print a line per cell of the suite in ``folder``, shown as ``name``, and how many are how far."""
    found = read_progress(folder)
    console.print(_status_table(folder, name, found))
    counts = Counter(one.status for one in found)
    console.print(", ".join(f"{number} {status}" for status, number in counts.most_common()))


def _status_table(folder: Path, name: str, found: Sequence[Progress]) -> Table:
    title = Text(f"{read_plan(folder).suite} ({name})")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
    for one in found:
        table.add_row(
            Text(one.cell.condition),
            str(one.cell.seed),
            one.cell.id if one.cell.skip is None and one.cell.id else "–",
            Text(one.status, style=_COLOURS.get(one.status, "red")),
            f"{one.step}/{one.max_steps}" if one.max_steps else "–",
            f"{one.seconds:.0f}" if one.cell.skip is None and one.cell.id else "–",
            "–" if one.age is None else f"{one.age:.0f} s ago",
            Text(one.message),
        )
    return table
