"""The main table: every condition with its scores, and which score best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from altgrad_core.analysis.words import (
    LEVEL,
    Spread,
    counted,
    interval_text,
    metric_label,
    percent,
    score,
    significant,
    with_spread,
)
from altgrad_core.interfaces.blocks import Block, Bullets, Cell, Paragraph, Shown, Table, table
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.ranks import ranks_kept
from altgrad_plugins.sections.reference import differences
from altgrad_plugins.sections.shared import (
    FLIPS,
    SPEED,
    STALLS,
    BuiltIn,
    by_condition,
    measured,
    over_seeds,
    planned,
    primary,
    to_run,
)

_MOST_SCORES = 5


class Results(BuiltIn):
    """One row per condition, and what a reader must know of them."""

    title = "Results: which conditions score best?"

    def build(self, found: Findings) -> Sequence[Block]:
        blocks: list[Block] = [Paragraph(_answer(found)), _table(found)]
        said = (*found.notes, *_remarks(found))
        return [*blocks, Bullets(said)] if said else blocks


def ranked(found: Findings) -> list[tuple[str, Spread]]:
    """Conditions from best to worst by the score that decides; those with diverged runs come last."""
    name, metric = primary(found)
    if metric is None:
        return []
    diverged = dict(zip(found.conditions["condition"], found.conditions["diverged"], strict=True))
    known = [(c, s) for c, s in by_condition(found, name).items() if s.n and math.isfinite(s.mean)]
    return sorted(known, key=lambda row: (bool(diverged[row[0]]), -metric.sign * row[1].mean))


def _answer(found: Findings) -> str:
    order = ranked(found)
    name, _ = primary(found)
    if not order:
        return "No run has a final score yet."
    best, values = order[0]
    return (
        f"The best mean {metric_label(found, name)} on the test split is {with_spread(values)}, of "
        f"{best}. It is the best of {counted(len(order), 'condition')}, chosen after the fact, so its "
        "score flatters it; what the paired differences carry is said above."
    )


def _table(found: Findings) -> Table:
    """A row per condition; the scores are the one that decides, and the first others of the task."""
    runs, kept, (reference, rows) = planned(found), ranks_kept(found), differences(found)
    apart = {row["condition"]: row for row in rows}
    every = dict.fromkeys([primary(found)[0], *(f"final/test/{m.name}" for m in found.metrics)])
    scores = [name for name in every if name in found.runs][:_MOST_SCORES]

    def spreads(name: str, write: Any) -> Shown:
        known = by_condition(found, name)
        return lambda row: write(known[row["condition"]])

    def named(row: Any) -> Cell:
        places = [d for d in runs.loc[runs["condition"] == row["condition"], "directory"] if d]
        return to_run(row["condition"], places[0] if len(places) == 1 else "")

    def interval(row: Any) -> str:
        one = apart.get(row["condition"], {"low": math.nan, "high": math.nan})
        return interval_text(one["low"], one["high"])

    def over(row: Any) -> str:
        return score(apart.get(row["condition"], {"mean": math.nan})["mean"], signed=True)

    shown: list[tuple[str, Shown]] = [
        ("Condition", named),
        ("Status", lambda row: _status(runs[runs["condition"] == row["condition"]])),
        *((metric_label(found, name), spreads(name, with_spread)) for name in scores),
        (f"Over {reference}", over),
        (f"{LEVEL} interval", interval),
        ("Samples/s", spreads(SPEED, lambda one: significant(one.mean))),
        ("Stalls (%)", spreads(STALLS, lambda one: percent(one.mean))),
        ("Flips (%)", spreads(FLIPS, lambda one: percent(one.mean))),
        ("Rank kept (%)", lambda row: percent(kept[row["condition"]])),
    ]
    said = " ".join(_caption(found, reference, [row["low"] for row in rows]))
    return table(found.conditions, shown, said, words=("Status",))


def _caption(found: Findings, reference: str, lows: Sequence[float]) -> Iterator[str]:
    """What the columns mean, of those that are there."""
    yield f"Test split, {over_seeds(found, 'mean ± standard deviation over seeds')}."
    if reference:
        label = metric_label(found, primary(found)[0])
        adjusted = "; intervals are not adjusted" if any(map(math.isfinite, lows)) else ""
        yield f"Over {reference}: difference in {label}, seed by seed; positive is better{adjusted}."
    if measured(found, STALLS):
        yield "Stalls: share of the non-zero updates that left the rung unchanged."
    if measured(found, FLIPS):
        yield "Flips: share of the weights whose rung changed in a step."
    if measured(found, STALLS) and (planned(found)["residency"] == "master").any():
        yield (
            "On master weights many stalls are normal and do no harm: the master collects what the "
            "rung does not show."
        )


def _status(runs: pd.DataFrame) -> Cell:
    counts = runs["status"].value_counts(sort=False)
    text = ", ".join(
        str(status) if len(runs) == 1 else f"{count} {status}" for status, count in counts.items()
    )
    return Cell(text, tone="plain" if set(counts.index) <= {"ok"} else "bad")


def _remarks(found: Findings) -> Iterator[str]:
    """What a reader must know to read the numbers."""
    runs, (name, metric) = planned(found), primary(found)
    count, label = int((runs["status"] == "diverged").sum()), metric_label(found, name)
    if count and metric is not None:
        lost = f"{counted(count, 'run')} diverged before the final evaluation"
        if metric.worst is None:
            yield f"{lost}: {label} has no worst value that a diverged run could count as; see the verdict."
        else:
            worst = significant(metric.worst)
            counts = "counts" if count == 1 else "count"
            yield f"{lost}, and {counts} as the worst {label}, {worst}, in every difference."
    devices = sorted(set(runs["device"]) - {""})
    if len(devices) > 1:
        yield f"The runs used different devices ({', '.join(devices)}): samples/s are not comparable."
    left = int((~found.runs["planned"] & (found.runs["stage"] == "final")).sum())
    if left:
        others = f"{counted(left, 'run')} of other settings"
        yield f"The folder also holds {others}, which the suite as last run does not ask for: left out."
