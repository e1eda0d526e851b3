"""Words that the report's sections share. None claims more than the numbers do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from altgrad_core.analysis.comparison import ALPHA, Comparison
from altgrad_core.analysis.contrast import Delta
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.numbers import counted, listed, score, significant
from altgrad_core.analysis.summary import SCORES
from altgrad_core.results.scores import worst_score

LEVEL = f"{100 * (1 - ALPHA):g}\N{NO-BREAK SPACE}%"
"""The nominal coverage of the report's intervals."""

_NAMED = 3
"""More groups than these are counted by format, where formats have several."""

VERDICTS = {
    "benefit": "benefit",
    "harm": "harm",
    "equivalent": "equivalent",
    "undecided": "cannot tell",
}


def metric_name(metric: str) -> str:
    """A metric as a reader calls it; its own name where it is not one of the main table's."""
    return SCORES.get(metric, metric)


def sides(found: Findings) -> str:
    """``manifold_adamw against adamw``."""
    contrast = found.contrast
    assert contrast is not None
    return f"{contrast.treatment} against {contrast.baseline}"


def group_noun(found: Findings) -> str:
    """What a group is called: a format, where nothing but formats tells the groups apart."""
    return "setting" if any(one.delta.place.setting for one in found.comparisons) else "format"


def interval_text(low: float, high: float) -> str:
    """``+0.0100 to +0.0300``; a dash where there is none."""
    if math.isnan(low):
        return score(math.nan)
    return f"{score(low, signed=True)} to {score(high, signed=True)}"


def difference_text(one: Comparison) -> str:
    """``+0.0200 (95 % interval +0.0100 to +0.0300)``, in the units of the metric."""
    mean = score(one.delta.delta.mean, signed=True)
    if math.isnan(one.summary.low) or one.summary.degenerate:
        return mean
    return f"{mean} ({LEVEL} interval {interval_text(*one.interval)})"


def verdict_word(one: Comparison) -> str:
    """The verdict in a word or two."""
    if one.censored:
        return "censored"
    if not one.summary.n:
        return "no result"
    if one.identical:
        return "identical"
    if one.summary.n == 1:
        return "one seed"
    word = VERDICTS[one.assessment.verdict]
    return f"{word}, not 0" if one.assessment.negligible else word


def named(names: Iterable[str], most: int = 6) -> str:
    """``a, b and c``; of many the first few, and how many more."""
    known = list(names)
    if len(known) <= most + 1:
        return listed(known)
    return f"{', '.join(known[:most])} and {len(known) - most} more"


def quoted(label: str) -> str:
    """A group's name in a sentence: in quotation marks where it has commas of its own."""
    return f"“{label}”" if ", " in label else label


def group_names(chosen: Iterable[Comparison], every: Sequence[Comparison]) -> str:
    """Names of groups in a sentence; of many the formats, and how many settings of each."""
    return delta_names([one.delta for one in chosen], [one.delta for one in every])


def delta_names(chosen: Sequence[Delta], every: Sequence[Delta]) -> str:
    """As :func:`group_names`."""
    names = [quoted(delta.group) for delta in chosen]
    total = Counter(delta.place.format for delta in every)
    if len(chosen) <= _NAMED or max(total.values(), default=1) == 1:
        return named(names)
    if len(chosen) == len(every):
        return f"all {len(every)} settings"
    return listed(
        f"{fmt} ({'all' if count == total[fmt] else f'{count} of'} {total[fmt]} settings)"
        for fmt, count in Counter(delta.place.format for delta in chosen).items()
    )


def number_range(numbers: Sequence[int]) -> str:
    """``3``, ``2 to 5``."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def scope(found: Findings) -> str:
    """How much of what was planned is there, in a sentence."""
    planned, done = len(found.planned), len(found.done)
    conditions = counted(len(found.conditions), "condition")
    text = f"{conditions}, {counted(found.seeds, 'seed')}: "
    if done == planned:
        return text + f"all {counted(planned, 'planned run')} have a result."
    return text + f"{done} of {counted(planned, 'planned run')} have a result; the rest is missing."


def rates(found: Findings) -> str:
    """How learning rates were chosen; empty where no run is there to tell."""
    planned = found.planned
    if found.tuning is not None:
        left = [c for c in dict.fromkeys(planned["condition"]) if c not in found.tuning.conditions]
        if not left:
            return ""
        return f"The learning rates of {named(left)} were not tuned."
    known = sorted(set(planned["learning_rate"].dropna()))
    if not known:
        return ""
    if len(known) == 1:
        return (
            f"All conditions were trained at the same learning rate, {known[0]:g}. "
            "It was not tuned for each of them, so a difference may come from the step size."
        )
    return (
        f"The suite sets the learning rates by hand: {listed(f'{rate:g}' for rate in known)}. They "
        "were not tuned for each condition, so a difference may come from the step size."
    )


def notes(found: Findings) -> tuple[str, ...]:
    """What a reader must know to read the numbers: one sentence or two each."""
    said = [*found.suite.notes, _diverged(found), _devices(found), _leftover(found)]
    return tuple(sentence for sentence in said if sentence)


def worst_note(delta: Delta) -> str:
    """``a diverged run counts as 0``; empty where none diverged."""
    if not delta.diverged:
        return ""
    return f"a diverged run counts as {significant(worst_score(delta.declared))}"


def reference_note(found: Findings) -> str:
    """What relative throughput is relative to."""
    return f"Speed is relative to {found.reference}." if found.reference is not None else ""


def _diverged(found: Findings) -> str:
    count = int((found.planned["status"] == "diverged").sum())
    if not count:
        return ""
    worst = worst_score(found.declared)
    runs = counted(count, "run")
    if math.isnan(worst):
        left_out = f"{found.metric} has no worst value, so they are left out of its differences"
        return f"{runs} diverged before the final evaluation; {left_out}."
    counts = "it counts" if count == 1 else "they count"
    text = f"{counts} as the worst score ({significant(worst)}) in every mean and difference"
    return f"{runs} diverged before the final evaluation; {text}."


def _devices(found: Findings) -> str:
    devices = sorted(set(found.done["device"]) - {""})
    if len(devices) < 2:
        return ""
    return f"The runs used different devices ({listed(devices)}): samples/s are not comparable."


def _leftover(found: Findings) -> str:
    left = ~found.results["planned"] & (found.results["stage"] == "final")
    count = int(left.sum())
    if not count:
        return ""
    runs = f"{counted(count, 'run')} of other settings"
    return f"The folder also holds {runs}, which the suite as last run does not ask for: left out."
