"""Rank stability: how much of their rank the weight matrices keep, and which lose it."""

from __future__ import annotations

from pathlib import Path

from altgrad_core.analysis.comparison import ALPHA, censoring
from altgrad_core.analysis.contrast import paired
from altgrad_core.analysis.document import Block, Paragraph, Section, Table, cells
from altgrad_core.analysis.figures import rank_figure
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.numbers import counted, percent, significant
from altgrad_core.analysis.paired import paired_summary
from altgrad_core.analysis.summary import column
from altgrad_core.analysis.tables import from_to, number_table
from altgrad_core.analysis.words import LEVEL, group_noun, named

TITLE = "Rank stability: do weight matrices keep their rank?"
_KEPT = "derived/all/effective_rank_kept"
_COLLAPSES = ("rank_collapse", "code_collapse")


def section(found: Findings, folder: Path) -> Section:
    """First and last ranks by condition, collapses, and the ranks by step."""
    measured = found.conditions["effective_rank_last"].notna()
    if not measured.any() and found.conditions["stable_rank_last"].isna().all():
        text = "No run has measured ranks; the monitor is called rank."
        return Section(TITLE, [Paragraph(text)])
    blocks: list[Block] = [Paragraph(_answer(found)), _table(found)]
    figure = rank_figure(found)
    blocks.extend([figure] if figure is not None else [])
    if found.comparisons:
        blocks.append(_differences(found))
    return Section(TITLE, blocks)


def collapses(found: Findings) -> dict[str, list[tuple[str, int]]]:
    """Condition -> layer and step of each collapse that a monitor reported."""
    seen: dict[str, list[tuple[str, int]]] = {}
    for run in found.runs:
        for event in run.history.events:
            if event.kind in _COLLAPSES:
                seen.setdefault(run.spec.condition, []).append((event.layer, event.step))
    return seen


def _answer(found: Findings) -> str:
    table = found.conditions.dropna(subset=["effective_rank_first", "effective_rank_last"])
    seen = collapses(found)
    count = sum(map(len, seen.values()))
    told = (
        f"Monitors reported {counted(count, 'collapse')}, in {named(seen)}."
        if count
        else "No monitor reported a collapse."
    )
    if table.empty:
        return told
    kept = (table["effective_rank_last"] / table["effective_rank_first"]).set_axis(
        table["condition"]
    )
    low, high = str(kept.idxmin()), str(kept.idxmax())
    if low == high or kept.min() == kept.max():
        return (
            f"{told} The effective rank ends at {percent(float(kept.min()))} % of its first value."
        )
    return (
        f"{told} The effective rank ends at {percent(float(kept.min()))} % ({low}) to "
        f"{percent(float(kept.max()))} % ({high}) of its first value. That is a description: a rank "
        "falls in every healthy training, and no threshold separates good from bad."
    )


def _table(found: Findings) -> Table:
    seen = collapses(found)
    rows = []
    for _, row in found.conditions.iterrows():
        first, last = row["effective_rank_first"], row["effective_rank_last"]
        where = seen.get(str(row["condition"]), [])
        rows.append(
            cells(
                str(row["condition"]),
                from_to(row["stable_rank_first"], row["stable_rank_last"]),
                from_to(first, last),
                percent(last / first),
                str(len(where)),
                str(min(step for _, step in where)) if where else "–",
            )
        )
    head = number_table(
        ("Condition",),
        ("Stable rank", "Effective rank", "Effective rank kept (%)", "Collapses", "First at step"),
    )
    caption = "First → last logged value, mean over the watched layers and over seeds."
    return Table(head, tuple(rows), caption)


def _differences(found: Findings) -> Table:
    """The share of the effective rank that is kept: treatment − baseline, paired by seed."""
    planned = found.planned
    last = column(planned, "rank/all/effective_rank@last")
    runs = planned[["condition", "seed", "status", "planned"]].copy()
    runs[_KEPT] = last / column(planned, "rank/all/effective_rank@first")
    rows = []
    for one in found.comparisons:
        place = one.delta.place
        delta = paired(
            runs[runs["condition"].isin(list(place.baseline))],
            runs[runs["condition"].isin(list(place.treatment))],
            _KEPT,
            place,
        )
        censored = censoring((*place.baseline, *place.treatment), found.tuning)
        summary = paired_summary(() if censored else delta.gains, confidence=1 - ALPHA)
        interval = (
            "–" if summary.degenerate else f"{_points(summary.low)} to {_points(summary.high)}"
        )
        rows.append(cells(one.group, censored or _points(summary.mean), interval, str(summary.n)))
    head = number_table(
        (group_noun(found).capitalize(),), ("Δ kept (points)", f"{LEVEL} interval", "Pairs")
    )
    caption = (
        "Share of the effective rank kept, treatment − baseline in percentage points; intervals are "
        "not adjusted."
    )
    return Table(head, tuple(rows), caption)


def _points(value: float) -> str:
    text = significant(100 * value)
    return f"+{text}" if value > 0 else text
