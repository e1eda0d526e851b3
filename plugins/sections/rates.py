"""The learning-rate protocol: what was tried, what was chosen, and where each condition breaks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

import altgrad_core.report.charts as charts
from altgrad_core.analysis.words import NONE, counted, listed, named, spread, with_spread
from altgrad_core.interfaces.blocks import Block, Cell, Paragraph, Shown, Table, table
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.equal_rates import equal_rates
from altgrad_plugins.sections.shared import BuiltIn, finite, planned, side_names

_COARSE = 2.0


class Rates(BuiltIn):
    """The protocol and its curves; without it, what the runs used instead."""

    title = "Learning rates"

    def build(self, found: Findings) -> Sequence[Block]:
        if found.tuning.empty:
            return [Paragraph(_untuned(found))]
        return [
            Paragraph(_answer(found)),
            _table(found.tuning),
            _curves(found),
            *equal_rates(found),
        ]


def _untuned(found: Findings) -> str:
    known = sorted(set(planned(found)["learning_rate"].dropna()))
    if not known:
        return "No run is there yet to tell its learning rate."
    same = f"All conditions were trained at the same learning rate, {known[0]:g}."
    several = f"The suite sets the learning rates by hand: {listed(f'{rate:g}' for rate in known)}."
    return (
        f"{same if len(known) == 1 else several} They were not tuned for each condition, so a "
        "difference may come from the step size. With training.learning_rate: auto they are, at "
        "equal budgets."
    )


def _answer(found: Findings) -> str:
    tuning = found.tuning
    rates = sorted(tuning["rate"].unique())
    seeds = list(dict.fromkeys(tuning["seed"]))
    text = (
        f"Every condition was trained at the same {counted(len(rates), 'rate')} "
        f"({', '.join(f'{rate:g}' for rate in rates)}) with {counted(len(seeds), 'seed')} of their own "
        f"({', '.join(map(str, seeds))}), and judged on validation data."
    )
    step = max((b / a for a, b in pairwise(rates)), default=1.0)
    if step > 1.01 * _COARSE:
        text += (
            f" Neighbouring rates are a factor {step:.3g} apart: beyond {_COARSE:g}, what two conditions "
            "differ in may be how near the grid comes to their best rates."
        )
    left = [c for c in map(str, found.conditions["condition"]) if c not in set(tuning["condition"])]
    if left:
        text += f" {named(left)}: not tuned by this protocol."
    text += _close_calls(tuning)
    censored = list(dict.fromkeys(tuning.loc[tuning["censored"], "condition"]))
    if not censored:
        return f"{text} No best rate lies on an edge of the grid."
    return (
        f"{text} The best rate of {named(censored)} lies on an edge of the grid: what these conditions "
        "reach at their own best rate is not known, and their differences are censored."
    )


def _close_calls(tuning: pd.DataFrame) -> str:
    """The conditions whose rate leads the next best by no more than the standard error of their paired difference."""
    close = []
    for condition, tried in tuning.groupby("condition", sort=False):
        scores = tried.pivot_table(index="seed", columns="rate", values="score", dropna=False)
        chosen = tried.loc[tried["chosen"], "rate"]
        if chosen.empty or len(scores) < 2:
            continue
        behind = scores.drop(columns=chosen.iloc[0]).sub(scores[chosen.iloc[0]], axis=0)
        leads = behind.mean(skipna=False).abs().dropna()
        if leads.empty:
            continue
        rate = leads.idxmin()
        if leads[rate] <= behind[rate].std() / math.sqrt(len(behind)):
            close.append(f"{condition} ({chosen.iloc[0]:g} before {rate:g})")
    if not close:
        return ""
    return (
        " The chosen rate leads the next best by no more than the standard error of their difference "
        f"in {named(close)}: other tuning seeds might have chosen the other, and what is found for a "
        "condition may hang on that."
    )


def _table(tuning: pd.DataFrame) -> Table:
    tries = [
        {
            "condition": condition,
            "chosen": tried[tried["chosen"]],
            "censored": bool(tried["censored"].any()),
            "stable": tried["largest_stable"].iloc[0],
            "largest": tried["rate"].max(),
            "diverged": int(tried["diverged"].sum()),
            "tried": tried["rate"].nunique(),
        }
        for condition, tried in tuning.groupby("condition", sort=False)
    ]
    shown: list[tuple[str, Shown]] = [
        ("Condition", "condition"),
        ("Chosen", _chosen),
        ("Score there", lambda row: with_spread(spread(row["chosen"]["score"]))),
        ("Largest stable rate", _stable),
        ("Diverged runs", "diverged"),
        ("Rates tried", "tried"),
    ]
    several = tuning["seed"].nunique() > 1
    score = "mean ± standard deviation over the tuning seeds" if several else "one tuning seed"
    caption = (
        f"Score: of validation, {score}. Largest stable rate: the largest at which no run diverged and "
        "the score is at least half as good as the best; ≥ where it is the largest that was tried."
    )
    return table(tries, shown, caption)


def _chosen(row: Mapping[str, Any]) -> Cell:
    rate = f"{row['chosen']['rate'].iloc[0]:g}" if len(row["chosen"]) else NONE
    return Cell(f"{rate}, censored", tone="bad") if row["censored"] else Cell(rate)


def _stable(row: Mapping[str, Any]) -> str:
    if not finite(row["stable"]):
        return NONE
    return f"{'≥ ' if row['stable'] == row['largest'] else ''}{row['stable']:g}"


def _curves(found: Findings) -> Block:
    """Score over learning rate, a panel per setting and format, a line per side."""
    data = found.tuning.join(
        found.conditions.set_index("condition")[["panel"]], on="condition", how="inner"
    )
    data = data.assign(side=data["condition"].map(side_names(found)))
    data = data.rename(columns={"rate": "step", "score": "value"})
    several = data["seed"].nunique() > 1
    lines = "each tuning seed thin, their mean thick" if several else "one tuning seed"
    caption = f"Validation score by learning rate: {lines}."
    return charts.curves(
        "tuning",
        caption,
        data[["panel", "side", "seed", "step", "value"]],
        title="validation score",
        xlabel="learning rate",
        log_x=True,
    )
