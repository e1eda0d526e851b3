"""What limits the verdict's claim: placebos, divergence, few seeds, learning rates, missing runs."""

from __future__ import annotations

from altgrad_core.analysis.comparison import ALPHA, Comparison
from altgrad_core.analysis.contrast import Delta, between
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.groups import Group
from altgrad_core.analysis.numbers import counted, score, significant
from altgrad_core.analysis.paired import paired_summary
from altgrad_core.analysis.words import (
    LEVEL,
    group_names,
    interval_text,
    number_range,
    quoted,
    rates,
)


def limits(found: Findings, best: Comparison | None) -> list[str]:
    """What limits the claim, weightiest first."""
    said = [*_placebos(found, best), *_seeds(found, best)]
    if rates(found):
        said.append(
            "Learning rates were not tuned for each condition, so any difference may come from the "
            "step size alone."
        )
    if censored := [one for one in found.comparisons if one.censored]:
        said.append(
            f"Not judged: {group_names(censored, found.comparisons)}, censored, since the best "
            "learning rate of a side lies on an edge of the tuned grid."
        )
    missing = len(found.planned) - len(found.done)
    if missing:
        verb = "has" if missing == 1 else "have"
        said.append(f"{missing} of {len(found.planned)} planned runs {verb} no result yet.")
    return said


def _seeds(found: Findings, best: Comparison | None) -> list[str]:
    if best is None:
        return []
    said = []
    if best.delta.diverged:
        pairs = counted(best.delta.diverged, "pair")
        said.append(f"{pairs} of {quoted(best.group)} with a diverged run decide its gain.")
    if best.summary.sign_flip_p > ALPHA:
        numbers = [one.summary.n for one in found.compared]
        said.append(
            f"With {number_range(numbers)} seeds this rests on the t test's normal differences: the "
            f"sign-flip test gives p {significant(best.summary.sign_flip_p)}, at best "
            f"{significant(best.summary.sign_flip_floor)}."
        )
    return said


def _placebos(found: Findings, best: Comparison | None) -> list[str]:
    """Whether the best group gains more than its placebos do."""
    if best is None:
        return []
    said = []
    for placebo in placebos_of(found, best):
        kind = placebo.place.placebo
        ahead = paired_summary(between(best.delta, placebo, Group("")).gains)
        if not ahead.n:
            continue
        text = score(ahead.mean, signed=True)
        if not ahead.degenerate:
            text += f" ({LEVEL} interval {interval_text(ahead.low, ahead.high)})"
        if not ahead.degenerate and ahead.low > 0:
            said.append(
                f"It gains {text} more than its {kind} placebo, which speaks for the geometry "
                "(not adjusted)."
            )
        else:
            said.append(
                f"Against its {kind} placebo the gain is {text}: that it comes from the geometry is "
                "not shown."
            )
    return said


def placebos_of(found: Findings, one: Comparison) -> list[Delta]:
    """The placebos of a group: equal in all but the stiffness."""
    place = one.delta.place
    return [
        delta
        for delta in found.placebos
        if (delta.place.panel, delta.place.family) == (place.panel, place.family)
    ]
