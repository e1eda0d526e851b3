"""How far the runs of a suite are, for ``altgrad-bench status``."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from altgrad_core.results.run_directory import RunDirectory, is_running
from altgrad_core.results.stored import PlannedCell, read_plan

_COLOURS = {
    "ok": "green",
    "running": "cyan",
    "pending": "dim",
    "skipped": "dim",
    "diverged": "yellow",
}


def print_status(folder: Path, name: str, console: Console) -> None:
    """Print a line per cell of the suite in ``folder``, shown as ``name``; how many there are of each status."""
    plan = read_plan(folder)
    table = Table(
        title=Text(f"{plan.suite} ({name})"), title_justify="left", box=None, pad_edge=False
    )
    for heading in (
        "condition",
        "seed",
        "id",
        "status",
        "step",
        "seconds",
        "last sign of life",
        "",
    ):
        table.add_column(
            heading, justify="right" if heading in ("seed", "step", "seconds") else "left"
        )
    counts: Counter[str] = Counter()
    for cell in plan.cells:
        state, columns = _row(folder, cell)
        counts[state] += 1
        table.add_row(
            Text(cell.condition),
            str(cell.seed),
            *(Text(c, style=_COLOURS.get(state, "red") if c == state else "") for c in columns),
        )
    console.print(table)
    console.print(", ".join(f"{number} {state}" for state, number in counts.most_common()))


def _row(folder: Path, cell: PlannedCell) -> tuple[str, list[str]]:
    """The status of a cell and its columns: id, status, step, seconds, age, message."""
    if cell.skip is not None:
        return "skipped", ["–", "skipped", "–", "–", "–", cell.skip]
    if cell.id is None:
        return "pending", ["–", "pending", "–", "–", "–", "its learning rate is tuned first"]
    directory = RunDirectory(folder / cell.id)
    status = directory.status()
    name, message = str(status.status), status.message
    if name == "running" and not is_running(directory):
        name, message = "interrupted", "its process is gone; run the suite again to go on"
    age = "–" if status.updated is None else f"{max(0.0, time.time() - status.updated):.0f} s ago"
    step = f"{status.step}/{status.max_steps}" if status.max_steps else "–"
    return name, [cell.id, name, step, f"{status.seconds:.0f}", age, message]
