"""Both sides of each group at one learning rate: is it the method that gains, or the rate that tuning gave it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from altgrad_core.analysis.words import (
    NONE,
    counted,
    group_names,
    group_noun,
    metric_label,
    sides,
    spread,
    with_spread,
)
from altgrad_core.interfaces.blocks import Block, Paragraph, Shown, Table, table
from altgrad_core.interfaces.metric import declared
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.shared import Row, effects


def equal_rates(found: Findings) -> list[Block]:
    """The gains of the tuning runs rate by rate; nothing where no group was tuned on both sides."""
    rows = _rows(found)
    return [Paragraph(_answer(found, rows)), _table(found, rows)] if rows else []


def _rows(found: Findings) -> list[Row]:
    """Of each group the tuned ``rates`` (baseline, treatment), its ``gains`` (seeds × rates) and those at its ``own``.

    NaN at a rate where a run of either side diverged: that is no measure of a gain.
    """
    tuning = found.tuning
    metric = declared(str(tuning["metric"].iloc[0]), found.metrics)
    if metric is None:
        return []
    known = tuning.assign(score=tuning["score"].where(tuning["diverged"] == 0))
    scores = known.pivot_table(
        index=["condition", "seed"], columns="rate", values="score", dropna=False
    )
    chosen = tuning[tuning["chosen"]].groupby("condition")["rate"].first()
    rows: list[Row] = []
    for row in effects(found):
        names = row["baseline_condition"], row["treatment_condition"]
        if row["refused"] or not set(names) <= set(chosen.index):
            continue
        before, after = (scores.loc[name] for name in names)
        rates = tuple(chosen[name] for name in names)
        own = metric.sign * (after[rates[1]] - before[rates[0]])
        rows.append({**row, "rates": rates, "gains": metric.sign * (after - before), "own": own})
    return rows


def _answer(found: Findings, rows: Sequence[Row]) -> str:
    differ = [row for row in rows if len(set(row["rates"])) > 1]
    every = counted(len(rows), group_noun(found))
    if not differ:
        return f"Both sides were tuned to the same rate in {'all ' * (len(rows) > 1)}{every}."
    return (
        f"The two sides were tuned to different rates in {len(differ)} of {every} "
        f"({group_names(differ, rows)}): what is gained there may be the rate's doing as much as the method's. "
        "Below, both are at one rate."
    )


def _table(found: Findings, rows: Sequence[Row]) -> Table:
    asked = found.question
    assert asked is not None  # there are groups
    label = metric_label(found, str(found.tuning["metric"].iloc[0]))
    columns: list[tuple[str, Shown] | tuple[str, Shown, str]] = [
        (group_noun(found).capitalize(), "group"),
        ("Tuned rates", _tuned, "of the baseline and of the treatment."),
        ("Each at its own", lambda row: _gain(row["own"])),
        *((f"Both at {rate:g}", partial(_at, rate)) for rate in rows[0]["gains"]),
    ]
    seeds = found.tuning["seed"].nunique()
    over = (
        f"mean ± standard deviation over {seeds} tuning seeds" if seeds > 1 else "one tuning seed"
    )
    caption = (
        f"Gain in {label}, of validation, {sides(asked)}, in the runs that tuning made: {over}; positive is "
        f"better. Described, not tested. {NONE}: a run diverged there, or has no score. One rate is one length "
        "of step only for optimizers that are alike."
    )
    return table(rows, columns, caption)


def _tuned(row: Mapping[str, Any]) -> str:
    return " / ".join(f"{rate:g}" for rate in row["rates"])


def _at(rate: float, row: Mapping[str, Any]) -> str:
    return _gain(row["gains"][rate])


def _gain(of_seeds: pd.Series[float]) -> str:
    return NONE if of_seeds.isna().any() else with_spread(spread(of_seeds), signed=True)
