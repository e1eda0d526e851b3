"""The main table: every condition with its scores, and which score best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from altgrad_core.analysis.words import (
    LEVEL,
    Spread,
    counted,
    metric_label,
    percent,
    significant,
    status,
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
    interval,
    over_seeds,
    planned,
    primary,
    signed,
    to_run,
)

_MOST_SCORES = 5


class Results(BuiltIn):
    """One row per condition, and what a reader must know of them."""

    title = "Results: which conditions score best?"

    def build(self, found: Findings) -> Sequence[Block]:
        blocks: list[Block] = [Paragraph(_answer(found)), _table(found)]
        said = tuple(_remarks(found))
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
    runs, kept, (reference, apart) = planned(found), ranks_kept(found), differences(found)
    name = primary(found)[0]
    every = dict.fromkeys([name, *(f"final/test/{metric.name}" for metric in found.metrics)])
    scores = [one for one in every if one in found.runs][:_MOST_SCORES]
    rows = found.conditions.join(apart, on="condition")
    adjusted = "; intervals are not adjusted" if apart["low"].notna().any() else ""
    on_master = (
        " On master weights many stalls are normal and do no harm: the master collects what the rung does "
        "not show."
    )

    def spreads(column: str, write: Callable[[Spread], str]) -> Shown:
        known = by_condition(found, column)
        return lambda row: write(known[row["condition"]])

    def named(row: Mapping[Any, Any]) -> Cell:
        places = [d for d in runs.loc[runs["condition"] == row["condition"], "directory"] if d]
        return to_run(row["condition"], places[0] if len(places) == 1 else "")

    return table(
        rows,
        [
            ("Condition", named),
            ("Status", status),
            *((metric_label(found, one), spreads(one, with_spread)) for one in scores),
            (
                f"Over {reference}",
                signed("mean"),
                f"difference in {metric_label(found, name)}, seed by seed; positive is better{adjusted}.",
            ),
            (f"{LEVEL} interval", interval()),
            ("Samples/s", spreads(SPEED, lambda one: significant(one.mean))),
            (
                "Stalls (%)",
                spreads(STALLS, lambda one: percent(one.mean)),
                "share of the non-zero updates that left the rung unchanged."
                + on_master * bool((runs["residency"] == "master").any()),
            ),
            (
                "Flips (%)",
                spreads(FLIPS, lambda one: percent(one.mean)),
                "share of the weights whose rung changed in a step.",
            ),
            ("Rank kept (%)", lambda row: percent(kept[row["condition"]])),
        ],
        f"Test split, {over_seeds(found, 'mean ± standard deviation over seeds')}.",
        words=("Status",),
    )


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
