"""What a report may say of each group: benefit, harm, equivalent or undecided.

The rule, fixed before any data are seen:

1. **The t test decides, with Holm over the distinct formats.** The sign-flip test assumes less,
   but with n seeds its p is at least ``2 / 2**n``: with 5 seeds it can never reach 0.05, and after
   Holm over 7 formats only from 9 seeds on. A rule that waits for it would never find anything at
   the sizes that people run; a rule that takes the smaller of the two p-values would be two tests
   at the price of one. So the t test decides, the sign-flip p is printed beside it, and
   :mod:`~altgrad_core.analysis.small_samples` says in words what few seeds cannot show.
2. *benefit* (*harm*): adjusted p ≤ α and the interval lies above (below) 0.
3. *equivalent*: the equivalence test's p, adjusted by Holm in a family of its own, is ≤ α.
   It takes precedence: an effect that is both real and smaller than the margin is one that nobody
   cares about, by the declaration of the margin. Such a group is ``negligible`` as well.
4. *undecided*: everything else. Not "no effect": the data cannot tell. This is also the verdict
   where there was nothing to test, however equal the runs were.

What it guarantees, for normal differences: the chance that any group without an effect is called a
benefit or a harm is at most α, and so is the chance that any group with an effect at or beyond the
margin is called equivalent. Over a family that has groups of both kinds the two add up, to 2α.
"Benefit" says that the effect is above 0, not that it is above the margin.

The intervals are not adjusted: 1 of 20 misses its mean. Hence the test on top of them in rule 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from altgrad_core.analysis.equivalence import Equivalence, tost
from altgrad_core.analysis.multiplicity import equal_classes, holm_over_distinct
from altgrad_core.analysis.numbers import counted, score, significant
from altgrad_core.analysis.paired import PairedSummary

Verdict = Literal["benefit", "harm", "equivalent", "undecided"]


@dataclass(frozen=True)
class Assessment:
    """A group's verdict, and all that led to it.

    Attributes:
        summary: The group's differences.
        adjusted_p: The t test's p after Holm; NaN where there was nothing to test.
        equivalence: The equivalence test; None where no margin was declared.
        equivalence_p: Its p after Holm; NaN where there was nothing to test, or no margin.
        family: How many distinct hypotheses Holm counted.
        alpha: The level of the verdict.
        verdict: The verdict.
    """

    summary: PairedSummary
    adjusted_p: float
    equivalence: Equivalence | None
    equivalence_p: float
    family: int
    alpha: float
    verdict: Verdict

    @property
    def negligible(self) -> bool:
        """Whether the effect is real, but smaller than the margin."""
        return self.verdict == "equivalent" and self.adjusted_p <= self.alpha


def classify(
    summary: PairedSummary, adjusted_p: float, equivalence_p: float = math.nan, alpha: float = 0.05
) -> Verdict:
    """The verdict by the rule of this module, from p-values that are already adjusted.

    Raises:
        ValueError: Where the summary's confidence is not ``1 − alpha``: interval and test would
            contradict each other.
    """
    if not math.isclose(summary.confidence, 1 - alpha):
        raise ValueError(
            f"a verdict at alpha {alpha} needs the {1 - alpha:g} interval, not {summary.confidence}"
        )
    if summary.degenerate:
        return "undecided"
    if equivalence_p <= alpha:
        return "equivalent"
    if adjusted_p <= alpha and (summary.low > 0 or summary.high < 0):
        return "benefit" if summary.low > 0 else "harm"
    return "undecided"


def assess(
    summaries: Mapping[str, PairedSummary],
    *,
    margin: float | None = None,
    equal_pairs: Iterable[tuple[str, str]] = (),
    alpha: float = 0.05,
) -> dict[str, Assessment]:
    """Adjust over the distinct groups and give each its verdict.

    ``summaries`` holds every planned group, also those without a result (the summary of no
    differences): they count in the family. ``equal_pairs`` names the groups that are the same
    hypothesis. Without a ``margin`` no group can be found equivalent.

    Raises:
        ValueError: Where a summary's confidence is not ``1 − alpha``, or the margin is not above 0.
    """
    pairs = tuple(equal_pairs)
    tests = {
        g: None if margin is None else tost(s, margin, alpha=alpha) for g, s in summaries.items()
    }
    raw = {group: math.nan if test is None else test.p for group, test in tests.items()}
    adjusted = holm_over_distinct({g: s.t_p for g, s in summaries.items()}, pairs)
    equivalent = holm_over_distinct(raw, pairs)
    family = len(equal_classes(summaries, pairs))
    return {
        group: Assessment(
            summary=summary,
            adjusted_p=adjusted[group],
            equivalence=tests[group],
            equivalence_p=equivalent[group],
            family=family,
            alpha=alpha,
            verdict=classify(summary, adjusted[group], equivalent[group], alpha),
        )
        for group, summary in summaries.items()
    }


def reason(found: Assessment) -> str:
    """Why the verdict is what it is, in one sentence."""
    summary, p = found.summary, significant(found.adjusted_p)
    if summary.n < 2:
        return f"There is nothing to test with {counted(summary.n, 'pair')} of runs."
    if summary.degenerate:
        return "All differences are equal, which is not evidence of zero variance: nothing to test."
    if found.verdict == "equivalent" and found.equivalence is not None:
        within = f"Effects beyond ±{score(found.equivalence.margin)} are ruled out"
        tested = f"(adjusted p {significant(found.equivalence_p)})"
        if found.negligible:
            return f"{within} {tested}; what there is differs from 0, but is negligible."
        return f"{within} {tested}."
    if found.verdict != "undecided":
        side = "above" if found.verdict == "benefit" else "below"
        level = f"{100 * summary.confidence:g} %"
        among = counted(found.family, "distinct group")
        return f"The {level} interval lies {side} 0, and p is {p} after Holm over {among}."
    return f"The data cannot tell{_alone(found)}{_supported(found)} (adjusted p {p})."


def _alone(found: Assessment) -> str:
    if found.summary.t_p > found.alpha:
        return ""
    return f": the difference would pass alone, but not as one of {found.family}"


def _supported(found: Assessment) -> str:
    if found.equivalence is None:
        return ""
    smallest, margin = score(found.equivalence.smallest_margin), score(found.equivalence.margin)
    if found.equivalence.p <= found.alpha:
        return f"; equivalence within ±{margin} would pass alone"
    return f"; they rule out effects beyond ±{smallest} alone, not beyond the margin of ±{margin}"
