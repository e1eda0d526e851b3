"""Against the reference: what each condition loses or gains over bf16 with the plain optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

import altgrad_core.report.charts as charts
from altgrad_core.analysis.words import LEVEL, counted, metric_label, named, score
from altgrad_core.interfaces.blocks import Block, Paragraph
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.shared import (
    DONE,
    EPOCH,
    BuiltIn,
    column,
    over_seeds,
    planned,
    primary,
    side_names,
)

_REFERENCES = ("bf16", "fp32")


class Reference(BuiltIn):
    """What can be said of the differences, which are in the main table; and the curves."""

    title = "Reference: how far from the baseline precision?"

    def build(self, found: Findings) -> Sequence[Block]:
        reference, apart = differences(found)
        text = "The suite has no bf16 or fp32 condition to compare with."
        if reference:
            text = f"No condition has a result on a seed of {reference}."
            text = _answer(apart, reference) if len(apart) else text
        return [Paragraph(text), *_curves(found)]


def _reference(found: Findings) -> str:
    """bf16, else fp32, with the baseline, on master weights where the suite has them; else the first."""
    runs = planned(found)
    if found.question is not None:
        side = dict(zip(found.conditions["condition"], found.conditions["side"], strict=True))
        runs = runs[runs["condition"].map(side) == "baseline"]
    runs = runs[runs["format"].isin(_REFERENCES)]
    runs = runs.sort_values(
        ["format", "residency"], key=lambda values: ~values.isin(["bf16", "master"]), kind="stable"
    )
    return str(runs["condition"].iloc[0]) if len(runs) else ""


def differences(found: Findings) -> tuple[str, pd.DataFrame]:
    """The condition that is the reference, empty for none; and ``mean``, ``low`` and ``high`` of every
    other one that has a pair − the reference, under the score that decides; positive is better.
    """
    reference, (name, metric) = _reference(found), primary(found)
    rows: dict[str, tuple[float, float, float]] = {}
    if reference and metric is not None:
        runs = planned(found)
        values, status = column(runs, name), runs["status"]
        lost = (status == "diverged") | (status.isin(DONE) & ~np.isfinite(values))
        values = values.mask(lost, math.nan if metric.worst is None else metric.worst)
        scores = runs.assign(score=values).dropna(subset=["score"])
        by_seed = scores.pivot_table(index="seed", columns="condition", values="score", sort=False)
        for condition in map(str, found.conditions["condition"]):
            pairs = by_seed.reindex(columns=[condition, reference]).dropna()
            gains = metric.sign * (pairs.iloc[:, 0] - pairs.iloc[:, 1])
            low = high = math.nan
            if gains.nunique() > 1:
                low, high = stats.ttest_1samp(gains, 0.0).confidence_interval(0.95)
            if condition != reference and len(gains):
                rows[condition] = (float(gains.mean()), low, high)
    return reference, pd.DataFrame.from_dict(rows, "index", columns=["mean", "low", "high"])


def _answer(apart: pd.DataFrame, reference: str) -> str:
    tested = apart.dropna()
    text = f"The reference is {reference}. "
    if tested.empty:
        means = apart["mean"]
        least, most = means.idxmin(), means.idxmax()
        low, high = (score(float(one), signed=True) for one in (means.min(), means.max()))
        return (
            f"{text}The differences run from {low} ({least}) to {high} ({most}); without a spread over "
            "seeds they cannot be told from chance."
        )
    worse, better = list(tested.index[tested["high"] < 0]), list(tested.index[tested["low"] > 0])
    return (
        f"{text}Of {counted(len(tested), 'other condition')} with a spread, the {LEVEL} interval lies "
        f"below it for {_which(worse)}, above it for {_which(better)}. The intervals are not adjusted: "
        "of 20, one misses its mean on average."
    )


def _which(names: Sequence[str]) -> str:
    return f"{len(names)} ({named(names, 4)})" if names else "none"


def _curves(found: Findings) -> list[Block]:
    """Training loss and the declared curves of validation, a panel per group."""
    others = found.curves["metric"].str.startswith("rank/") | (found.curves["metric"] == EPOCH)
    status = dict(zip(found.runs["id"], found.runs["status"], strict=True))
    names = side_names(found)
    blocks: list[Block] = []
    for name, data in found.curves[~others].groupby("metric", sort=False):
        if data["step"].nunique() < 2:
            continue
        label = metric_label(found, str(name))
        frame: pd.DataFrame = data.assign(
            diverged=[status.get(i) == "diverged" for i in data["id"]],
            side=data["condition"].map(names),
        )
        split = str(name).partition("/")[0]
        lines = over_seeds(found, "seeds thin, their mean thick")
        caption = f"{label} by step ({split}); {lines}, a cross where a run diverged."
        blocks.append(charts.curves(f"curve_{len(blocks)}", caption, frame, title=label))
    return blocks or [Paragraph("No run has logged a loss or an evaluation yet.")]
