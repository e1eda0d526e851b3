"""What the sections share: columns of the table of runs, means over conditions, and links to runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from altgrad_core.analysis.words import Spread, interval_text, score, significant, spread
from altgrad_core.interfaces.blocks import Cell, Shown
from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.metric import column as metric_column
from altgrad_core.interfaces.plugin import NoSettings
from altgrad_core.interfaces.section import Findings, Section

Row = dict[Any, Any]
"""A row of a table, by the names of its columns."""

SPEED = "throughput/all/cumulative_samples_per_second@last"
TOKENS = "throughput/all/cumulative_tokens_per_second@last"
STALLS = "flips/all/stall_ratio@mean"
FLIPS = "flips/all/flip_ratio@mean"
EPOCH = "train/all/epoch"
DONE = ("ok", "diverged")
"""Statuses of runs that have a result."""
SAMPLE = "sample"
"""Kind of the events that hold what a model wrote at an evaluation (``Evaluation.samples``)."""


class BuiltIn(Section):
    """Base of the sections here, which have nothing to set."""

    def __init__(self, settings: NoSettings) -> None:
        self.settings = settings


def effects(found: Findings, *roles: str) -> list[Row]:
    """The rows of the table of effects, of these roles only if any are given."""
    rows = found.effects.to_dict("records")
    return [row for row in rows if not roles or row["role"] in roles]


def planned(found: Findings) -> pd.DataFrame:
    """The runs that the suite asks for."""
    return found.runs[found.runs["planned"]]


def over_seeds(found: Findings, several: str = "mean over seeds", one: str = "one seed") -> str:
    """What is said of several seeds, or of one, where that is all there is."""
    return several if planned(found)["seed"].nunique() > 1 else one


def primary(found: Findings) -> tuple[str, Metric | None]:
    """The column that decides, and its declaration: the question's, else the task's primary one."""
    if found.question is not None:
        return found.question.metric, found.question.declared
    metric = next((one for one in found.metrics if one.primary), None)
    return (metric_column(metric), metric) if metric is not None else ("", None)


def column(runs: pd.DataFrame, name: str) -> pd.Series[float]:
    """A numeric column of the table of runs; all NaN if no run recorded it."""
    if name in runs:
        return runs[name].astype("float64")
    return pd.Series(math.nan, index=runs.index, dtype="float64")


def by_condition(found: Findings, name: str) -> dict[str, Spread]:
    """Condition -> the spread of a column over its runs that have a result.

    Scores are those of the table of conditions, where a diverged run counts as the worst.
    """
    table, runs = found.conditions, planned(found)
    if name in table:
        known = zip(*(table[one] for one in (name, f"{name} std", f"{name} n")), strict=True)
        return dict(zip(table["condition"], (Spread(*one) for one in known), strict=True))
    runs = runs[runs["status"].isin(DONE)]
    values = column(runs, name).groupby(runs["condition"])
    known_here = {str(condition): spread(some) for condition, some in values}
    return {condition: known_here.get(condition, spread([])) for condition in table["condition"]}


def executions(found: Findings) -> dict[str, str]:
    """Condition -> how its products were computed, ``simulated`` or ``native``, where its settings are known."""
    runs = planned(found)
    known = {
        str(c): text for c, text in zip(runs["condition"], runs["settings"], strict=True) if text
    }
    settings = {condition: json.loads(text)["quantization"] for condition, text in known.items()}
    return {c: str(one.get("execution", "simulated")) for c, one in settings.items()}


def measured(found: Findings, name: str) -> bool:
    """Whether any planned run has a number there."""
    return bool(column(planned(found), name).notna().any())


def side_names(found: Findings) -> dict[str, str]:
    """Condition -> which side it is, as the suite calls it; its optimizer where it is on neither."""
    asked = found.question
    known = {"baseline": asked.baseline, "treatment": asked.treatment} if asked else {}
    rows = found.conditions[["condition", "side", "optimizer"]].itertuples(index=False)
    return {str(c): known.get(side, str(optimizer)) for c, side, optimizer in rows}


def plain(name: str) -> Shown:
    """A column of a table that shows a score."""
    return lambda row: score(row[name])


def signed(name: str) -> Shown:
    """One that shows a difference of scores."""
    return lambda row: score(row[name], signed=True)


def digits(name: str, write: Callable[[float], str] = significant) -> Shown:
    """One that shows another number, to three digits."""
    return lambda row: write(row[name])


def interval(prefix: str = "") -> Shown:
    """One that shows an interval: ``low`` and ``high``, with that prefix."""
    return lambda row: interval_text(row[f"{prefix}low"], row[f"{prefix}high"])


def to_run(text: str, directory: str) -> Cell:
    """A cell that leads to a run; plain where it is not known where that is."""
    return Cell(text, href=directory or None)


def finite(value: Any) -> bool:
    """Whether a value of a table is a number that is known."""
    return isinstance(value, int | float) and math.isfinite(value)
