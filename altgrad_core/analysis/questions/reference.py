"""Against the reference: what each condition loses or gains over bf16 with the plain optimizer."""

from __future__ import annotations

from pathlib import Path

from altgrad_core.analysis.comparison import ALPHA, censoring
from altgrad_core.analysis.contrast import Delta, paired
from altgrad_core.analysis.document import Block, Paragraph, Section, Table, cells
from altgrad_core.analysis.figures import loss_figure, validation_figure
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.groups import Group
from altgrad_core.analysis.numbers import NONE, counted, score
from altgrad_core.analysis.paired import PairedSummary, paired_summary
from altgrad_core.analysis.tables import number_table
from altgrad_core.analysis.words import LEVEL, interval_text, metric_name, named

TITLE = "Reference: how far from the baseline precision?"


def section(found: Findings, folder: Path) -> Section:
    """Each condition − the reference, paired by seed, and the curves of both."""
    drawn = [f for f in (validation_figure(found), loss_figure(found)) if f is not None]
    if found.reference is None:
        return Section(TITLE, [Paragraph("The suite has no condition to compare with.")])
    rows = differences(found)
    blocks: list[Block] = [Paragraph(_answer(found, rows))]
    if rows:
        blocks.append(_table(found, rows))
    if not drawn:
        blocks.append(Paragraph("No run has logged a loss or an evaluation yet."))
    return Section(TITLE, [*blocks, *drawn])


Row = tuple[str, Delta, PairedSummary, str]
"""Condition, its differences from the reference, their summary, and why there is none if so."""


def differences(found: Findings) -> list[Row]:
    """Every other condition − the reference, under the metric that decides."""
    planned, reference = found.planned, found.reference
    base = planned[planned["condition"] == reference]
    rows = []
    for condition in dict.fromkeys(map(str, planned["condition"])):
        if condition == reference:
            continue
        place = Group(condition, baseline=(str(reference),), treatment=(condition,))
        delta = paired(base, planned[planned["condition"] == condition], found.metric, place)
        censored = censoring((*place.baseline, *place.treatment), found.tuning)
        summary = paired_summary(() if censored else delta.gains, confidence=1 - ALPHA)
        rows.append((condition, delta, summary, censored))
    return rows


def _answer(found: Findings, rows: list[Row]) -> str:
    known = [row for row in rows if row[2].n]
    head = f"The reference is {found.reference}. "
    if not known:
        return f"{head}No other condition has a result on a seed that it has."
    worse = [c for c, _, s, _ in known if s.high < 0 and not s.degenerate]
    better = [c for c, _, s, _ in known if s.low > 0 and not s.degenerate]
    tested = [row for row in known if not row[2].degenerate]
    if not tested:
        ordered = sorted(known, key=lambda row: row[1].delta.mean)
        low, high = ordered[0], ordered[-1]
        return (
            f"{head}The differences run from {score(low[1].delta.mean, signed=True)} ({low[0]}) to "
            f"{score(high[1].delta.mean, signed=True)} ({high[0]}); without a spread over seeds they "
            "cannot be told from chance."
        )
    return (
        f"{head}Of {counted(len(tested), 'other condition')} with a spread, the {LEVEL} interval lies "
        f"below it for {_which(worse)}, above it for {_which(better)}. The intervals are not adjusted: "
        "of 20, one misses its mean on average."
    )


def _which(names: list[str]) -> str:
    return f"{len(names)} ({named(names, 4)})" if names else "none"


def _table(found: Findings, rows: list[Row]) -> Table:
    head = number_table(
        ("Condition",),
        (f"Δ {metric_name(found.metric)}", f"{LEVEL} interval", "Pairs", "Better than reference"),
    )
    shown = []
    for condition, delta, summary, censored in rows:
        low, high = (summary.low, summary.high) if delta.sign > 0 else (-summary.high, -summary.low)
        shown.append(
            cells(
                condition,
                censored or score(delta.delta.mean, signed=True),
                NONE if summary.degenerate else interval_text(low, high),
                str(len(delta.pairs)),
                f"{delta.improved} of {len(delta.pairs)}" if delta.pairs and not censored else NONE,
            )
        )
    caption = f"Each condition − {found.reference}, seed by seed; intervals are not adjusted."
    return Table(head, tuple(shown), caption)
