"""The report's tables, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from altgrad_core.analysis.document import Cell, Column, Table, columns
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.numbers import NONE, percent, significant, with_spread
from altgrad_core.analysis.provenance import directory_link
from altgrad_core.analysis.summary import SCORES, score_of
from altgrad_core.analysis.words import reference_note

MAIN_COLUMNS = (
    Column("Condition"),
    Column("Status"),
    *(Column(title, numeric=True) for title in SCORES.values()),
    Column("Samples/s", numeric=True),
    Column("Speed (×)", numeric=True),
    Column("Stable rank", numeric=True),
    Column("Effective rank", numeric=True),
    Column("Stalls (%)", numeric=True),
    Column("Flips (%)", numeric=True),
)


def number_table(words: tuple[str, ...], numbers: tuple[str, ...]) -> tuple[Column, ...]:
    """The head of a table: columns of words, then columns of numbers."""
    return columns(*words, *numbers, numbers=numbers)


def main_table(found: Findings, folder: Path) -> Table:
    """One row per condition; the scores of a condition with a single run link to it."""
    links = run_links(found, folder)
    rows = tuple(
        main_row(row, links.get(str(row["condition"]))) for _, row in found.conditions.iterrows()
    )
    spread_note = "mean ± standard deviation over seeds" if found.seeds > 1 else "one seed"
    caption = (
        f"Test split, {spread_note}. Ranks: first → last logged value, mean over layers. Stalls: "
        "share of the non-zero updates that left the rung unchanged. Flips: share of the weights "
        f"whose rung changed in a step. {reference_note(found)}"
    )
    return Table(MAIN_COLUMNS, rows, caption.strip())


def main_row(row: pd.Series[float], link: str | None = None) -> tuple[Cell, ...]:
    """The cells of one row of the condition table."""
    return (
        Cell(str(row["condition"]), href=link),
        status_cell(str(row["status"])),
        *(Cell(with_spread(score_of(row, metric))) for metric in SCORES),
        Cell(significant(row["samples_per_second"])),
        Cell(significant(row["relative_throughput"])),
        Cell(from_to(row["stable_rank_first"], row["stable_rank_last"])),
        Cell(from_to(row["effective_rank_first"], row["effective_rank_last"])),
        Cell(percent(row["stall_ratio"])),
        Cell(percent(row["flip_ratio"])),
    )


def status_cell(status: str) -> Cell:
    """A status, marked unless all is well."""
    names = {part.split()[-1] for part in status.split(", ")}
    return Cell(status, tone="plain" if names == {"ok"} else "bad")


def run_links(found: Findings, folder: Path) -> Mapping[str, str]:
    """Condition -> the address of its run, for conditions that have a single one."""
    places: dict[str, list[str]] = {}
    for condition, place in zip(
        found.planned["condition"], found.planned["directory"], strict=True
    ):
        places.setdefault(str(condition), []).append(str(place))
    return {
        condition: directory_link(found_at[0], folder)
        for condition, found_at in places.items()
        if len(found_at) == 1 and found_at[0]
    }


def linked(text: str, location: str, folder: Path) -> Cell:
    """A cell that leads to a run; plain where the run has no directory."""
    return Cell(text, href=directory_link(location, folder) if location else None)


def from_to(first: float, last: float) -> str:
    """``41.3 → 8.01``; a dash where neither was measured."""
    if math.isnan(first) and math.isnan(last):
        return NONE
    return f"{significant(first)} → {significant(last)}"
