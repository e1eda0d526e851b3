"""The main table: every condition with its scores, and which score best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

import altgrad_core.report.charts as charts
from altgrad_core.interfaces.blocks import Block, Bullets, Cell, Paragraph, Table, cells
from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.section import Findings
from altgrad_core.report.words import (
    NONE,
    Spread,
    counted,
    metric_label,
    percent,
    score,
    significant,
    with_spread,
)
from altgrad_plugins.sections.shared import (
    FLIPS,
    SPEED,
    STALLS,
    BuiltIn,
    by_condition,
    head,
    planned,
    records,
    to_run,
)

_MOST_SCORES = 5


class Results(BuiltIn):
    """One row per condition, scores by setting and format, and what a reader must know of them."""

    title = "Results: which conditions score best?"

    def build(self, found: Findings) -> Sequence[Block]:
        """See the class."""
        blocks: list[Block] = [Paragraph(_answer(found)), _table(found), *_heat(found)]
        said = _remarks(found)
        return [*blocks, Bullets(said)] if said else blocks


def primary(found: Findings) -> tuple[str, Metric | None]:
    """The column that decides, and its declaration: the question's, else the task's primary one."""
    if found.question is not None:
        return found.question.metric, found.question.declared
    metric = next((one for one in found.metrics if one.primary), None)
    return (f"final/test/{metric.name}", metric) if metric is not None else ("", None)


def score_columns(found: Findings) -> list[str]:
    """The scores of the main table: the one that decides, then the task's others on the test split."""
    first, _ = primary(found)
    others = [f"final/test/{metric.name}" for metric in found.metrics]
    known = [name for name in dict.fromkeys([first, *others]) if name in found.runs]
    return known[:_MOST_SCORES]


def ranked(found: Findings) -> list[tuple[str, Spread]]:
    """Conditions from best to worst by the score that decides; those with diverged runs come last."""
    name, metric = primary(found)
    if metric is None:
        return []
    diverged = dict(zip(found.conditions["condition"], found.conditions["diverged"], strict=True))
    known = [(c, s) for c, s in by_condition(found, name).items() if s.n and math.isfinite(s.mean)]
    sign = -1 if metric.direction == "higher" else 1
    return sorted(known, key=lambda row: (bool(diverged[row[0]]), sign * row[1].mean))


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
    scores = score_columns(found)
    spreads = {name: by_condition(found, name) for name in (*scores, SPEED, STALLS, FLIPS)}
    runs = planned(found)
    rows = []
    for one in records(found.conditions):
        condition = str(one["condition"])
        places = [d for d in runs.loc[runs["condition"] == condition, "directory"] if d]
        rows.append(
            (
                to_run(condition, places[0] if len(places) == 1 else ""),
                _status(runs[runs["condition"] == condition]),
                *cells(*(with_spread(spreads[name][condition]) for name in scores)),
                *cells(
                    significant(spreads[SPEED][condition].mean),
                    percent(spreads[STALLS][condition].mean),
                    percent(spreads[FLIPS][condition].mean),
                ),
            )
        )
    labels = [metric_label(found, name) for name in scores]
    columns = head(("Condition", "Status"), (*labels, "Samples/s", "Stalls (%)", "Flips (%)"))
    seeds = runs["seed"].nunique()
    spread_note = "mean ± standard deviation over seeds" if seeds > 1 else "one seed"
    caption = (
        f"Test split, {spread_note}. Stalls: share of the non-zero updates that left the rung "
        "unchanged. Flips: share of the weights whose rung changed in a step."
    )
    if (runs["residency"] == "master").any() and (
        runs[STALLS].notna().any() if STALLS in runs else False
    ):
        caption += (
            " On master weights many stalls are normal and do no harm: the master collects what the "
            "rung does not show."
        )
    return Table(columns, tuple(rows), caption)


def _status(runs: pd.DataFrame) -> Cell:
    counts = runs["status"].value_counts(sort=False)
    text = ", ".join(
        str(status) if len(runs) == 1 else f"{count} {status}" for status, count in counts.items()
    )
    return Cell(text, tone="plain" if set(counts.index) <= {"ok"} else "bad")


def _heat(found: Findings) -> list[Block]:
    """Format × setting; nothing where only one of the two varies."""
    table = found.conditions
    if table["format"].nunique() < 2 or table["setting"].nunique() < 3:
        return []
    name, _ = primary(found)
    means = by_condition(found, name)
    frame = pd.DataFrame(
        {
            "row": table["setting"].replace("", NONE),
            "column": table["format"],
            "value": math.nan,  # scores are compared by their numbers; a tint would say which is good
            "text": [score(means[str(c)].mean) for c in table["condition"]],
        }
    )
    caption = f"Mean {metric_label(found, name)} by setting and format."
    return [charts.heat("scores", caption, frame)]


def _remarks(found: Findings) -> tuple[str, ...]:
    """What a reader must know to read the numbers."""
    return tuple(filter(None, [*found.notes, _diverged(found), _devices(found), _leftover(found)]))


def _diverged(found: Findings) -> str:
    count = int((planned(found)["status"] == "diverged").sum())
    name, metric = primary(found)
    if not count or metric is None:
        return ""
    runs = f"{counted(count, 'run')} diverged before the final evaluation"
    label = metric_label(found, name)
    if metric.worst is None:
        return f"{runs}: {label} has no worst value that a diverged run could count as; see the verdict."
    return (
        f"{runs}, and count as the worst {label}, {significant(metric.worst)}, in every difference."
    )


def _devices(found: Findings) -> str:
    devices = sorted(set(planned(found)["device"]) - {""})
    if len(devices) < 2:
        return ""
    return f"The runs used different devices ({', '.join(devices)}): samples/s are not comparable."


def _leftover(found: Findings) -> str:
    left = found.runs[~found.runs["planned"] & (found.runs["stage"] == "final")]
    if left.empty:
        return ""
    runs = f"{counted(len(left), 'run')} of other settings"
    return f"The folder also holds {runs}, which the suite as last run does not ask for: left out."
