"""The verdict: one paragraph that says what the numbers carry, and nothing more.

In this order: a broken instrument ends it; then groups that benefit are named, with the evidence;
then, where none does, whether a benefit beyond the margin is ruled out or the data cannot tell. What
limits the claim (missing runs, untuned learning rates, placebos, divergence) is said with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from altgrad_core.analysis.comparison import Comparison
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.limits import limits
from altgrad_core.analysis.numbers import counted, score, significant
from altgrad_core.analysis.paired import paired_summary
from altgrad_core.analysis.words import (
    LEVEL,
    difference_text,
    group_names,
    group_noun,
    interval_text,
    metric_name,
    quoted,
    sides,
    worst_note,
)


def verdict(found: Findings) -> str:
    """The whole paragraph."""
    if found.contrast is None:
        return "The suite declares no contrast, so no format can be said to benefit."
    if not found.comparisons:
        return f"No group of the suite has both sides of {sides(found)}: there is no verdict."
    if found.broken:
        return _broken(found)
    compared = found.compared
    if not compared:
        return " ".join([_nothing(found), *limits(found, None)])
    if max(one.summary.n for one in compared) == 1:
        return " ".join([_single(found), *limits(found, None)])
    winners = benefiting(found)
    said = _benefit(found, winners) if winners else _no_benefit(found)
    return " ".join([*said, *limits(found, winners[0] if winners else None)])


def benefiting(found: Findings) -> list[Comparison]:
    """The groups that are shown to benefit, by more than the noise floor; the largest gain first."""
    floor = found.floor or 0.0
    winners = [
        one
        for one in found.comparisons
        if one.assessment.verdict == "benefit" and one.summary.mean > floor
    ]
    return sorted(winners, key=lambda one: -one.summary.mean)


def _broken(found: Findings) -> str:
    worst = max(found.broken, key=lambda twins: abs(twins.difference))
    a, b = worst.formats
    return (
        f"The instrument is not trustworthy: {a} and {b} are the same grid up to a power of two and "
        f"all scales are powers of two, so their runs must be equal, but {len(found.broken)} of "
        f"{len(found.twins)} comparisons differ, by up to {score(abs(worst.difference))} "
        f"({worst.setting}, seed {worst.seed}). No difference in this report is to be believed until "
        "that is explained."
    )


def _nothing(found: Findings) -> str:
    if any(one.delta.pairs for one in found.comparisons):
        return "Every comparison is censored: no difference can be judged."
    return f"No group has a result on both sides of {sides(found)} yet."


def _head(found: Findings) -> str:
    return f"{sides(found)}, {metric_name(found.metric)}"


def _single(found: Findings) -> str:
    """One seed: what was seen, and that it proves nothing."""
    compared = found.compared
    ordered = sorted(compared, key=lambda one: one.delta.gain)
    best, worst = ordered[-1], ordered[0]
    text = (
        "The data cannot tell: one seed carries no spread, so these differences cannot be told from "
        f"chance. {_head(found)}: "
    )
    if len(ordered) == 1:
        return f"{text}the difference in {quoted(best.group)} is {_ends(best)}."
    if best.delta.gain == worst.delta.gain:
        value = score(best.delta.delta.mean, signed=True)
        return f"{text}the difference is {value} in each of {group_names(compared, compared)}."
    if best.delta.gain > 0:
        top = f"the largest gain is in {quoted(best.group)}, {_ends(best)}"
    else:
        top = f"no {group_noun(found)} gains; the best difference is {_ends(best)} in {quoted(best.group)}"
    least = [one for one in compared if one.delta.gain == worst.delta.gain]
    return f"{text}{top}; the least is {_ends(worst)} in {group_names(least, found.comparisons)}."


def _ends(one: Comparison) -> str:
    delta = one.delta
    ends = f"from {score(delta.baseline.mean)} to {score(delta.treatment.mean)}"
    note = worst_note(delta)
    return f"{score(delta.delta.mean, signed=True)} ({ends}{f'; {note}' if note else ''})"


def _evidence(one: Comparison) -> str:
    found, n = one.assessment, one.summary.n
    tested = f"p {significant(found.adjusted_p)} after Holm over {found.family}"
    improved = one.summary.improved
    better = {0: "none better", n: "all better"}.get(improved, f"{improved} better")
    return f"{difference_text(one)}, {tested}, {counted(n, 'seed')}, {better}"


def _benefit(found: Findings, winners: Sequence[Comparison]) -> list[str]:
    best, noun = winners[0], group_noun(found)
    contrast, margin = found.contrast, found.margin
    assert contrast is not None
    said = [
        f"{contrast.treatment} is shown to benefit {len(winners)} of "
        f"{counted(len(found.comparisons), noun)} over {contrast.baseline} in "
        f"{metric_name(found.metric)}. "
        + (
            f"The {noun} is {quoted(best.group)}: {_evidence(best)}."
            if len(winners) == 1
            else f"The largest gain is in {quoted(best.group)}: {_evidence(best)}."
        )
    ]
    if margin is not None:
        if best.summary.low > margin:
            said.append(f"The gain is beyond the margin of ±{score(margin)}.")
        else:
            said.append(f"That the gain is beyond the margin of ±{score(margin)} is not shown.")
    if len(winners) > 1:
        said.append(_lead_over(best, winners[1]))
        said.append(f"Also shown to benefit: {group_names(winners[1:], found.comparisons)}.")
    return [*said, *_others(found, winners)]


def _lead_over(best: Comparison, second: Comparison) -> str:
    """Whether the first gains more than the second, by the differences of their differences."""
    gains = {p.seed: best.delta.sign * p.delta for p in best.delta.pairs}
    other = {p.seed: second.delta.sign * p.delta for p in second.delta.pairs}
    ahead = paired_summary(gains[seed] - other[seed] for seed in gains if seed in other)
    if ahead.degenerate:
        return f"That it gains more than {quoted(second.group)} was not tested."
    text = (
        f"{score(ahead.mean, signed=True)}, {LEVEL} interval {interval_text(ahead.low, ahead.high)}"
    )
    if ahead.low > 0:
        return f"Its lead over the next, {quoted(second.group)}, is {text} (not adjusted)."
    return f"That it gains more than the next, {quoted(second.group)}, is not shown ({text})."


def _others(found: Findings, winners: Sequence[Comparison]) -> list[str]:
    """What is said of the groups that are not shown to benefit."""
    every = found.comparisons
    rest = [one for one in found.compared if one not in winners]
    by_verdict = {
        name: [o for o in rest if o.assessment.verdict == name and not o.identical]
        for name in ("equivalent", "harm", "undecided", "benefit")
    }
    said = []
    if harmed := by_verdict["harm"]:
        worst = min(harmed, key=lambda one: one.summary.mean)
        most = f", most in {quoted(worst.group)}" if len(harmed) > 1 else ""
        said.append(f"It does harm in {group_names(harmed, every)}{most}: {_evidence(worst)}.")
    if (same := by_verdict["equivalent"]) and found.margin is not None:
        said.append(
            f"Effects beyond ±{score(found.margin)} are ruled out in {group_names(same, every)}."
        )
    if (open_ := by_verdict["undecided"]) and (winners or len(said)):
        said.append(f"For {group_names(open_, every)} the data cannot tell.")
    if inside := by_verdict["benefit"]:
        said.append(
            f"The gain in {group_names(inside, every)} lies within the noise floor of "
            f"{score(found.floor or 0.0)} and is not counted as one."
        )
    return [*said, *_identical(found)]


def _identical(found: Findings) -> list[str]:
    same = [one for one in found.compared if one.identical]
    if not same:
        return []
    text = f"In {group_names(same, found.comparisons)} both sides have the same score in every seed"
    numbers = [found.formats.get(one.delta.place.format) for one in same]
    if all(one is not None and one.uniform for one in numbers):
        text += ": on a uniform grid the stiffness is the same for every weight of a tensor"
    return [f"{text}."]


def _no_benefit(found: Findings) -> list[str]:
    open_ = [one for one in found.compared if not one.identical]
    margin, noun = found.margin, group_noun(found)
    if not open_:
        return ["No benefit is shown, and nothing could be tested.", *_identical(found)]
    undecided = [o for o in open_ if o.assessment.verdict in ("undecided", "benefit")]
    judged = len(found.compared) == len(found.comparisons)
    if not undecided and margin is not None:
        which = f"No {noun}" if judged else f"No {noun} that can be judged"
        head = f"{which} benefits beyond the margin of ±{score(margin)}: {_head(found)}."
        return [head, *_others(found, ())]
    best = max(undecided or open_, key=lambda one: one.summary.mean)
    said = [f"The data cannot tell whether any {noun} benefits: {_head(found)}."]
    smallest = min(
        (o.assessment.adjusted_p for o in open_ if not math.isnan(o.assessment.adjusted_p)),
        default=math.nan,
    )
    if not math.isnan(smallest):
        family = open_[0].assessment.family
        said.append(f"The smallest p is {significant(smallest)} after Holm over {family}.")
    what = "largest gain" if best.delta.gain > 0 else "best difference, a loss or none,"
    said.append(f"The {what} is in {quoted(best.group)}: {difference_text(best)}{_needs(best)}.")
    if margin is None:
        said.append("No margin was declared, so no effect can be called too small to matter.")
    return [*said, *_others(found, ())]


def _needs(one: Comparison) -> str:
    plan = one.seeds
    if plan is None:
        return ""
    return (
        f"; an effect of that size calls for {plan.needed} seeds "
        f"(between {plan.fewest} and {plan.most}), where there are {one.summary.n}"
    )
