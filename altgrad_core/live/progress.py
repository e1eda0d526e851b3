"""How far the cells of a suite are, as HTML above the live report. Cheap: only statuses are read."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pydantic import ValidationError

from altgrad_core.analysis.document import Cell
from altgrad_core.analysis.html_tables import (
    numeric_class,
    row_header,
    scrolling,
    table_element,
)
from altgrad_core.analysis.numbers import NONE, counted
from altgrad_core.errors import UserError
from altgrad_core.results.run_directory import FINISHED, RunDirectory, is_running
from altgrad_core.results.stored import PlannedCell, StoredPlan

_SILENT = 30.0
"""Seconds without a sign of life after which it is checked whether a run's process is there."""
_WAITING = ("pending", "skipped")
_ORDER = ("running", "interrupted")  # then all trouble, then these:
_LAST = ("ok", "pending", "skipped")


@dataclass(frozen=True)
class Progress:
    """One cell of the plan: its status, and how far it is (0 to 1)."""

    cell: PlannedCell
    status: str
    step: int
    max_steps: int
    seconds: float
    age: float | None
    """Seconds since the last sign of life; None where the run is not under way."""
    message: str

    @property
    def share(self) -> float:
        """Of the steps; 1 for a run that has ended, whatever its end."""
        if self.status in ("running", "interrupted"):
            return min(1.0, self.step / self.max_steps) if self.max_steps else 0.0
        return 0.0 if self.status in _WAITING else 1.0


def read_progress(folder: Path, now: float | None = None) -> tuple[Progress, ...]:
    """Every cell of the plan in ``folder``, in its order. ``UserError`` if a file cannot be read."""
    plan_file = folder / "plan.json"
    try:
        plan = StoredPlan.model_validate(json.loads(plan_file.read_bytes()))
    except OSError as error:
        raise UserError(f"{plan_file} cannot be read: {error.strerror}.") from error
    except (ValueError, ValidationError) as error:
        raise UserError(f"{plan_file} is not a plan of this version: {error}.") from error
    moment = time.time() if now is None else now
    return tuple(_progress(folder, cell, moment) for cell in plan.cells)


def progress_html(found: tuple[Progress, ...]) -> str:
    """The whole suite's bar and counts, and a row for each cell: what is under way comes first."""
    planned = [one for one in found if one.status != "skipped"]
    done = sum(one.share for one in planned)
    tuned = any(one.cell.stage == "tune" for one in found)
    titles = ("Condition", "Seed", *(("Stage",) if tuned else ()))
    titles = (*titles, "Status", "Steps", "Seconds", "Last sign of life", "Message")
    numbers = ("Seed", "Seconds")
    head = "".join(
        f'<th scope="col"{numeric_class(title in numbers)}>{title}</th>' for title in titles
    )
    rows = "\n".join(_row(one, tuned) for one in sorted(found, key=_place))
    bar = (
        f'<progress aria-label="all runs" max="{len(planned) or 1}" value="{done:.2f}"></progress>'
    )
    table = scrolling("progress of each run", table_element(head, rows))
    return f'<p class="whole">{bar}<br>{escape(_summary(found))}</p>\n{table}'


def _progress(folder: Path, cell: PlannedCell, now: float) -> Progress:
    if cell.skip is not None or cell.id is None:
        return Progress(cell, "skipped", 0, 0, 0.0, None, cell.skip or "")
    directory = RunDirectory(folder / cell.id)
    status = directory.status()
    name, message, age = str(status.status), status.message, None
    if name == "running":
        age = max(0.0, now - status.updated) if status.updated is not None else None
        if (age is None or age > _SILENT) and not is_running(directory):
            name, message = "interrupted", "its process is gone; run the suite again to go on"
    return Progress(cell, name, status.step, status.max_steps, status.seconds, age, message)


def _summary(found: tuple[Progress, ...]) -> str:
    """``7 of 12 runs have ended (6 ok, 1 diverged); 2 running, 3 pending.``"""
    counts = Counter(one.status for one in found)
    under_way = [name for name in (*_ORDER, *_WAITING) if counts[name]]
    ended = {name: n for name, n in counts.items() if name not in under_way}
    planned = len(found) - counts["skipped"]
    text = f"{sum(ended.values())} of {counted(planned, 'run')} have ended"
    if ended:
        text += f" ({', '.join(f'{n} {name}' for name, n in ended.items())})"
    rest = ", ".join(f"{counts[name]} {name}" for name in under_way)
    return f"{text}; {rest}." if rest else f"{text}."


def _place(one: Progress) -> int:
    if one.status in _ORDER:
        return _ORDER.index(one.status)
    return len(_ORDER) + 1 + _LAST.index(one.status) if one.status in _LAST else len(_ORDER)


def _row(one: Progress, tuned: bool) -> str:
    cell = one.cell
    known = one.status not in _WAITING
    name = Cell(cell.condition, href=f"{cell.id}/" if known else None)
    tone = "" if one.status in (*FINISHED, "running", *_WAITING) else ' class="bad"'
    age = NONE if one.age is None else f"{one.age:.0f} s ago"
    cells = [
        f"<td{numeric_class(True)}>{cell.seed}</td>",
        *([f"<td>{escape(cell.stage)}</td>"] if tuned else []),
        f"<td><span{tone}>{escape(one.status)}</span></td>",
        f'<td class="steps">{_bar(one)}</td>',
        f"<td{numeric_class(True)}>{f'{one.seconds:.0f}' if known else NONE}</td>",
        f"<td>{age}</td>",
        f'<td class="text">{escape(one.message)}</td>',
    ]
    return f"<tr>{row_header(name)}{''.join(cells)}</tr>"


def _bar(one: Progress) -> str:
    if not one.max_steps or one.status in _WAITING:
        return NONE
    label = f"steps of {one.cell.condition}, seed {one.cell.seed}"
    return (
        f'<progress aria-label="{escape(label)}" max="{one.max_steps}" value="{one.step}">'
        f"</progress> {one.step}/{one.max_steps}"
    )
