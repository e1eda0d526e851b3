"""What models of language learned: against n-grams, by epoch, and in their own words.

Read from what a task may give: the fact ``baselines`` (name -> split -> metric -> value), the curve
``train/all/epoch``, and the samples of its evaluations. A suite that has none of them has no such
section.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from altgrad_core.analysis.words import NONE, counted, listed, metric_label, significant
from altgrad_core.interfaces.blocks import Block, Paragraph, Shown, table
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.shared import (
    EPOCH,
    SAMPLE,
    BuiltIn,
    by_condition,
    over_seeds,
    planned,
    primary,
    to_run,
)

_MOST_EPOCHS = 8
_LOSS, _VALIDATION = "train/all/loss", "validation/all/loss"


class Samples(BuiltIn):
    """The baselines beside the best and the worst condition, losses by epoch, one sample each."""

    title = "Samples: what did the models learn?"

    def build(self, found: Findings) -> Sequence[Block]:
        return [*_baselines(found), *_epochs(found), *_samples(found)]


def _baselines(found: Findings) -> list[Block]:
    name, metric = primary(found)
    if metric is None or len(found.facts) != 1 or not name.startswith("final/test/"):
        return []
    told = next(iter(found.facts.values())).get("baselines", {})
    known = {
        base: float(splits["test"][metric.name])
        for base, splits in told.items()
        if metric.name in splits.get("test", {})
    }
    means = {c: s.mean for c, s in by_condition(found, name).items() if s.n}
    if not known or not means:
        return []
    order = sorted(means, key=lambda condition: -metric.sign * means[condition])
    parts = [f"{base} {significant(value)}" for base, value in known.items()]
    text = (
        f"{metric_label(found, name)} on the test split; {metric.direction} is better. Models that count "
        f"tokens of the training split reach: {listed(parts)}. The best condition, {order[0]}, reaches "
        f"{significant(means[order[0]])}, the worst, {order[-1]}, {significant(means[order[-1]])}."
    )
    beaten = {b: [m for m in means.values() if metric.better(m, v)] for b, v in known.items()}
    ahead = min(map(len, beaten.values()))
    text += f" {ahead} of {counted(len(means), 'condition')} beat all that only count"
    each = listed(f"{len(those)} beat {base}" for base, those in beaten.items())
    return [Paragraph(f"{text}; {each}." if len(known) > 1 else f"{text}.")]


def _epochs(found: Findings) -> list[Block]:
    """Loss of training and validation by epoch, where there is more than one."""
    at = found.curves[found.curves["metric"] == EPOCH]
    if at.empty or at["value"].max() <= 1.0:
        return []
    rate = at.assign(rate=at["value"] / at["step"]).groupby("id")["rate"].max()  # epochs a step
    losses = found.curves[found.curves["metric"].isin([_LOSS, _VALIDATION])]
    passed = (losses["step"] * losses["id"].map(rate)).round(9)
    losses = losses.assign(epoch=passed.map(math.ceil))
    last = losses["epoch"].max()
    shown = range(max(1, last - _MOST_EPOCHS + 1), last + 1)
    train = losses[losses["metric"] == _LOSS].groupby(["condition", "epoch"])["value"].mean()
    ends = losses[losses["metric"] == _VALIDATION].sort_values("step", kind="stable")
    final = ends.groupby(["condition", "id", "epoch"])["value"].last()
    held = final.groupby(level=["condition", "epoch"]).mean()
    texts = pd.concat({"train": train, "held": held}, axis=1).map(significant)
    rows = (texts["train"] + " / " + texts["held"]).unstack()
    conditions = list(dict.fromkeys(found.conditions["condition"]))
    rows = rows.reindex(index=conditions, columns=shown).fillna(f"{NONE} / {NONE}")
    rows.columns = rows.columns.map(str)
    caption = (
        f"Loss by epoch, {over_seeds(found)}: of training over the epoch, and of validation at its last "
        "evaluation in it. The last epoch may not be a whole one."
    )
    epochs = ((f"Epoch {epoch}", str(epoch)) for epoch in shown)
    return [table(rows.reset_index(), [("Condition", "condition"), *epochs], caption)]


def _samples(found: Findings) -> list[Block]:
    """Of each condition the last sample of its first run that has one."""
    runs = planned(found)
    seen = found.events[(found.events["kind"] == SAMPLE) & found.events["id"].isin(runs["id"])]
    if seen.empty:
        return []
    place = dict(zip(runs["id"], runs["directory"], strict=True))
    seen = seen.sort_values("step", kind="stable").sort_values(
        "seed", ascending=False, kind="stable"
    )
    last = seen.groupby("condition", sort=False).tail(1)
    order = {condition: at for at, condition in enumerate(found.conditions["condition"])}
    last = last.sort_values("condition", key=lambda names: names.map(order))
    shown: list[tuple[str, Shown]] = [
        ("Condition", lambda row: to_run(row["condition"], place[row["id"]])),
        ("Step", "step"),
        ("Sample", lambda row: " ".join(row["message"].split())),
    ]
    caption = (
        "What each model wrote at its last evaluation, first seed; before the arrow stands the text that "
        "it goes on from. Every evaluation's are in the metrics.jsonl of its run."
    )
    return [table(last, shown, caption, words=("Sample",))]
