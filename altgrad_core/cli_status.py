"""What ``altgrad-bench status`` shows: a table, plain data, or a page in place until all runs have ended."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from altgrad_core.results.overview import WAITING, Progress, read_progress, summary
from altgrad_core.results.run_directory import FINISHED
from altgrad_core.results.stored import read_plan

_WATCH_SECONDS = 2.0
_COLOURS = {"ok": "green", "running": "cyan", "diverged": "yellow", **dict.fromkeys(WAITING, "dim")}
_TOLD = ("status", "step", "max_steps", "seconds", "age", "message")
_NUMBERS = ("seed", "step", "seconds")
_HEADINGS = ("condition", "seed", "id", "status", "step", "seconds", "last sign of life", "")


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
