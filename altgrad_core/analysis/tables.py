"""The report's tables, cell by cell."""

from __future__ import annotations

import math

import pandas as pd

from altgrad_core.analysis.contrast import Delta, axes_of
from altgrad_core.analysis.document import Cell, Column, Table
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.numbers import (
    NONE,
    percent,
    score,
    significant,
    with_spread,
)
from altgrad_core.analysis.summary import SCORES, score_of
from altgrad_core.analysis.words import metric_name, reference_note
from altgrad_core.results.collect import FORMAT_AXIS

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


def main_table(found: Findings) -> Table:
    """One row per condition."""
    rows = tuple(main_row(row) for _, row in found.conditions.iterrows())
    spread_note = "mean ± standard deviation over seeds" if found.seeds > 1 else "one seed"
    caption = (
        f"Test split, {spread_note}. Ranks: first → last logged value, mean over layers. Stalls: "
        "share of the non-zero updates that left the rung unchanged. Flips: share of the weights "
        f"whose rung changed in a step. {reference_note(found)}"
    )
    return Table(MAIN_COLUMNS, rows, caption.strip())


def main_row(row: pd.Series[float]) -> tuple[Cell, ...]:
    """The cells of one row of the condition table."""
    return (
        Cell(str(row["condition"])),
        status_cell(str(row["status"])),
        *(Cell(with_spread(score_of(row, metric))) for metric in SCORES),
        Cell(significant(row["samples_per_second"])),
        Cell(significant(row["relative_throughput"])),
        Cell(_from_to(row["stable_rank_first"], row["stable_rank_last"])),
        Cell(_from_to(row["effective_rank_first"], row["effective_rank_last"])),
        Cell(percent(row["stall_ratio"])),
        Cell(percent(row["flip_ratio"])),
    )


def status_cell(status: str) -> Cell:
    """A status, marked unless all is well."""
    names = {part.split()[-1] for part in status.split(", ")}
    return Cell(status, tone="plain" if names == {"ok"} else "bad")


def delta_table(found: Findings) -> Table:
    """One row per group: both sides, their difference, its spread, and the other scores'."""
    contrast = found.contrast
    assert contrast is not None
    numbers = (
        contrast.baseline,
        contrast.treatment,
        f"Δ {metric_name(contrast.metric)}",
        "std",
        "Pairs",
        "Improved",
        *(f"Δ {metric_name(name)}" for name in found.companions),
    )
    head = (Column(group_title(found)), *(Column(title, numeric=True) for title in numbers))
    rows = []
    for place, delta in enumerate(found.deltas):
        others = [found.companions[name][place] for name in found.companions]
        rows.append(_delta_row(delta, others))
    return Table(
        head, tuple(rows), f"Δ = {contrast.treatment} − {contrast.baseline}, seed by seed."
    )


def _delta_row(delta: Delta, others: list[Delta]) -> tuple[Cell, ...]:
    n, planned = len(delta.pairs), len(delta.pairs) + len(delta.missing)
    texts = (
        delta.group,
        score(delta.baseline.mean),
        score(delta.treatment.mean),
        score(delta.delta.mean, signed=True),
        score(delta.delta.std),
        str(n) if n == planned else f"{n} of {planned}",
        f"{delta.improved} of {n}" if n else NONE,
        *(score(other.delta.mean, signed=True) for other in others),
    )
    return tuple(Cell(text) for text in texts)


def group_title(found: Findings) -> str:
    """What a group is called: the format, where nothing but formats and the contrast vary."""
    contrast = found.contrast
    rest = [name for name in axes_of(found.results) if contrast is None or name != contrast.axis]
    return "Format" if rest in ([], [FORMAT_AXIS]) else "Setting"


def _from_to(first: float, last: float) -> str:
    if math.isnan(first) and math.isnan(last):
        return NONE
    return f"{significant(first)} → {significant(last)}"
