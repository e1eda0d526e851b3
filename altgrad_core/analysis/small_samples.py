"""What few seeds cannot show, in words: the cautions that stand beside every number of a report.

Each number in these sentences is either a formula or was measured by simulation, and the tests
measure it again:

* The sign-flip test of n differences has no p below ``2 / 2**n``.
* A Shapiro-Wilk test at 0.05 finds an exponential distribution in 17 % of samples of 5, 34 % of 8
  and 84 % of 20: below 8 a check of normality is a formality.
* The 95 % t interval of 5 such values covers their mean in 88 % of cases.
* The percentile bootstrap's 95 % interval of 5 normal values covers in 84 % (10: 90 %, 20: 93 %).
  That is why reports give the t interval.
* No event in n runs is compatible with a rate of up to ``1 − (1 − confidence)^(1/n)``, the exact
  (Clopper-Pearson) upper limit; for large n the "rule of three", ``3/n``.
* The last one matters most. If the treatment diverges in one run of ten, five seeds show none in 59 %
  of cases, and their t interval then knows nothing of it: over all cases it covers the mean in
  about 41 %.
"""

from __future__ import annotations

import math

from altgrad_core.analysis.numbers import counted, percent, significant
from altgrad_core.analysis.paired import PairedSummary, smallest_sign_flip_p

FEW_FOR_NORMALITY = 8
"""Below this many differences nothing can be said about their distribution."""
_RARE = 0.1
"""An unseen rate of divergence up to this is not worth a sentence."""


def seeds_for_sign_flip(alpha: float) -> int:
    """The fewest seeds with which the sign-flip test can reach ``alpha``: ``2 / 2**n ≤ alpha``.

    Raises:
        ValueError: For alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    n = 1
    while smallest_sign_flip_p(n) > alpha:
        n += 1
    return n


def unseen_rate(n: int, *, confidence: float = 0.95) -> float:
    """The largest rate, 0 to 1, of an event that happened in none of ``n`` runs; 1 for none.

    Raises:
        ValueError: For a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    return 1 - (1 - confidence) ** (1 / n) if n > 0 else 1.0


def cautions(
    summary: PairedSummary, *, alpha: float = 0.05, family: int = 1, diverged: int | None = None
) -> tuple[str, ...]:
    """What a reader of this group's numbers must know: one sentence or two each, weightiest first.

    They name no group: groups with as many seeds share most of them, and a report says each once.

    Args:
        summary: The group's differences.
        alpha: The level of the report's tests.
        family: Distinct hypotheses among which the report adjusts by Holm.
        diverged: Pairs with a diverged run; None where nobody counted.
    """
    if summary.n == 0:
        return ("No seed has a result on both sides.",)
    if summary.n == 1:
        return ("One seed carries no spread: this difference cannot be told from chance.",)
    if summary.degenerate:
        return (*_equal(summary, diverged),)
    said = [
        _divergence(summary.n, diverged),
        _lattice(summary, alpha, family),
        _normality(summary.n),
        _disagreement(summary, alpha),
    ]
    return tuple(sentence for sentence in said if sentence)


def _equal(summary: PairedSummary, diverged: int | None) -> list[str]:
    value = significant(summary.mean)
    text = (
        f"All {summary.n} differences are equal ({value}). That is not evidence of zero variance: "
        "the seed may change nothing, or the score may be too coarse. Nothing was tested."
    )
    if diverged:
        return [text, f"Pairs with a diverged run, which counts as the worst score: {diverged}."]
    return [text]


def _divergence(n: int, diverged: int | None) -> str:
    if diverged is None:
        return ""
    if diverged:
        verb = "has" if diverged == 1 else "have"
        return (
            f"{diverged} of {n} pairs {verb} a diverged run, which counts as the worst score: it "
            "decides the mean and the width of the interval. The differences are not normal; "
            "read the sign-flip test and the share of seeds that improve first."
        )
    rate = unseen_rate(n)
    if rate <= _RARE:
        return ""
    return (
        f"No run of {n} seeds diverged, which is compatible with a rate of divergence up to "
        f"{percent(rate)} %. The interval does not cover what was not seen."
    )


def _lattice(summary: PairedSummary, alpha: float, family: int) -> str:
    floor = summary.sign_flip_floor
    if floor <= alpha / family:
        return ""
    seeds = counted(summary.n, "seed")
    if summary.nonzero < summary.n:
        seeds += f" ({summary.n - summary.nonzero} without a difference)"
    text = f"With {seeds} the sign-flip test cannot give a p below {significant(floor)}"
    least = f"{seeds_for_sign_flip(alpha)} seeds are the fewest that can reach {alpha:g}"
    if family > 1:
        least += f", and {seeds_for_sign_flip(alpha / family)} after Holm over {family} formats"
    return f"{text}: {least}."


def _normality(n: int) -> str:
    if n >= FEW_FOR_NORMALITY:
        return ""
    return (
        f"{counted(n, 'seed')} cannot show whether the differences are normal, which the t interval "
        "assumes. From 5 strongly skewed ones its coverage is 88 % instead of 95 % (a percentile "
        "bootstrap's is 84 % even from normal ones)."
    )


def _disagreement(summary: PairedSummary, alpha: float) -> str:
    by_t, by_flips = summary.t_p <= alpha, summary.sign_flip_p <= alpha
    if by_t == by_flips or math.isnan(summary.t_p) or summary.sign_flip_floor > alpha:
        return ""
    return (
        f"The two tests disagree at {alpha:g}, before any adjustment (t "
        f"{significant(summary.t_p)}, sign flips {significant(summary.sign_flip_p)}): the "
        "differences are few, skewed or have an outlier."
    )
