"""What limits the claim of a verdict: divergence, placebos, few seeds, the test set, learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterator

from altgrad_core.analysis.family import Family, Row
from altgrad_core.analysis.statistics import unseen_rate
from altgrad_core.analysis.words import (
    LEVEL,
    counted,
    interval_text,
    percent,
    quoted,
    score,
    significant,
)

_NAMED = 3
"""Groups whose divergence is told one by one."""


def limits(family: Family, *, tuned: bool) -> Iterator[str]:
    """What limits the claim, weightiest first; ``tuned``: whether the learning rates were."""
    if not family.judged:
        return
    yield from divergence(family)
    yield from _placebos(family)
    yield from _sampling(family)
    if not tuned:
        yield (
            "Learning rates were not tuned for each condition, so any difference may come from "
            "the step size alone."
        )


def divergence(family: Family) -> Iterator[str]:
    """Which runs diverged, and what became of their pairs."""
    ended = [r for r in family.tested if r["diverged_baseline"] or r["diverged_treatment"]]
    ended.sort(key=lambda row: row["diverged_baseline"] - row["diverged_treatment"])
    for row in ended[:_NAMED]:
        left, right = int(row["diverged_baseline"]), int(row["diverged_treatment"])
        planned = int(row["planned"])
        text = (
            f"In {quoted(row['group'])} the treatment diverged in {right} and the baseline in "
            f"{left} of {counted(planned, 'seed')}"
        )
        worst = family.question.declared.worst
        if worst is not None:
            yield f"{text}; a diverged run counts as {significant(worst)}."
        else:
            left_out = counted(int(row["dropped"]), "pair")
            label = family.question.declared.label
            yield f"{text}; {label} has no worst value, so that the gain is without {left_out}."
    if len(ended) > _NAMED:
        yield f"Runs of {counted(len(ended) - _NAMED, f'more {family.noun}')} diverged."
    more = [r for r in family.judged if r["diverged_treatment"] > r["diverged_baseline"]]
    if more:
        yield f"Where it diverges more often it is no benefit: {family.names(more)}."


def beyond_margin(family: Family, row: Row) -> Iterator[str]:
    """Whether the gain is beyond what matters, and what few seeds cannot show."""
    margin = family.question.margin
    if margin is not None:
        shown = "" if row["low"] > margin else "not shown to be "
        yield f"The gain is {shown}beyond the margin of ±{score(margin)}."
    if not row["diverged_baseline"] and not row["diverged_treatment"]:
        n = int(row["n"])
        yield (
            f"None of its runs diverged, which {n} seeds leave compatible with a rate of "
            f"divergence of up to {percent(unseen_rate(n))} %."
        )


def _placebos(family: Family) -> Iterator[str]:
    """Whether the groups that are shown to benefit gain more than their placebos."""
    shown = {row["group"]: row for row in family.of("benefit")}
    for row in family.rows:
        if row["role"] != "placebo" or row["reference_group"] not in shown:
            continue
        ahead = f"{quoted(row['reference_group'])} gains {score(-row['excess'], signed=True)}"
        interval = interval_text(-row["excess_high"], -row["excess_low"])
        if row["excess_high"] < 0:
            yield (
                f"{ahead} ({LEVEL} interval {interval}) more than its {row['placebo']} placebo, "
                "which speaks for the geometry (not adjusted)."
            )
        else:
            yield (
                f"That {quoted(row['reference_group'])} gains more than its {row['placebo']} "
                f"placebo is not shown (ahead by {score(-row['excess'], signed=True)}, {LEVEL} "
                f"interval {interval})."
            )


def _sampling(family: Family) -> Iterator[str]:
    """A margin below what the test set itself can resolve."""
    margin = family.question.margin
    errors = [r["sampling_std"] for r in family.judged if not math.isnan(r["sampling_std"])]
    if margin is not None and errors and margin < 2 * max(errors):
        yield (
            f"The margin of ±{score(margin)} is below the error of the test set itself: drawing "
            f"other test examples moves a mean gain by {score(max(errors))} (standard deviation)."
        )
