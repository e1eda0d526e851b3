"""The report's sentences. None claims more than the numbers do: this report makes no test."""

from __future__ import annotations

import math

from altgrad_core.analysis.contrast import Delta
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.numbers import counted, listed, score, significant, with_spread
from altgrad_core.analysis.summary import SCORES, reference_condition, worst_score


def metric_name(metric: str) -> str:
    """A metric as a reader calls it; its own name where it is not one of the main table's."""
    return SCORES.get(metric, metric)


def lead(found: Findings) -> str:
    """What was compared, how much of it is there, and what came out, in one paragraph."""
    return " ".join([_scope(found), *_outcome(found), *_certainty(found)])


def notes(found: Findings) -> tuple[str, ...]:
    """What a reader must know to read the numbers: one sentence or two each."""
    said = [_rates(found), _diverged(found), _devices(found), *_floors(found), _leftover(found)]
    return tuple(sentence for sentence in said if sentence)


def _scope(found: Findings) -> str:
    planned, done = len(found.planned), len(found.done)
    conditions = counted(len(found.conditions), "condition")
    text = f"{conditions}, {counted(found.seeds, 'seed')}: "
    if done == planned:
        return text + f"all {counted(planned, 'planned run')} have a result."
    return text + f"{done} of {counted(planned, 'planned run')} have a result; the rest is missing."


def _outcome(found: Findings) -> list[str]:
    contrast = found.contrast
    if contrast is None:
        return ["The suite declares no contrast, so no difference is computed."]
    name = f"{metric_name(contrast.metric)} (test split)"
    sides = f"{contrast.treatment} against {contrast.baseline}"
    if not found.compared:
        return [f"No group has a result on both sides of {sides} yet."]
    ordered = sorted(found.compared, key=lambda delta: delta.gain)
    best, worst = ordered[-1], ordered[0]
    head = f"{sides}, {name}: "
    if len(ordered) == 1:
        return [head + f"the difference in {best.group} is {_difference(best)}."]
    if best.delta.mean == worst.delta.mean:
        value = score(best.delta.mean, signed=True)
        return [f"{head}the difference is {value} in each of {listed(d.group for d in ordered)}."]
    gains = best.gain > 0
    top = (
        f"the largest gain is in {best.group}"
        if gains
        else "no group gains; the best difference is"
    )
    top += f", {_difference(best)}" if gains else f" {_difference(best)} in {best.group}"
    return [head + top + f"; the least is {_difference(worst)} in {worst.group}."]


def _difference(delta: Delta) -> str:
    ends = f"from {score(delta.baseline.mean)} to {score(delta.treatment.mean)}"
    if any(pair.diverged for pair in delta.pairs):
        ends += f", a diverged run counting as {significant(worst_score(delta.metric))}"
    return f"{with_spread(delta.delta, signed=True)} ({ends})"


def _certainty(found: Findings) -> list[str]:
    if not found.compared:
        return []
    pairs = [delta.delta.n for delta in found.compared]
    if max(pairs) == 1:
        text = "One seed carries no spread: these differences cannot be told from chance."
        return [text, *_within_floor(found)]
    text = f"± is the standard deviation over {_range(pairs)} paired seeds"
    return [f"{text}, not a confidence interval; nothing was tested.", *_within_floor(found)]


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _within_floor(found: Findings) -> list[str]:
    if not found.floor:
        return []
    inside = [d.group for d in found.compared if abs(d.delta.mean) <= found.floor]
    if not inside:
        return []
    return [f"Within the noise floor of {score(found.floor)}: {listed(inside)}."]


def _rates(found: Findings) -> str:
    rates = sorted(set(found.planned["learning_rate"].dropna()))
    if not rates:
        return ""
    if len(rates) == 1:
        return (
            f"All conditions were trained at the same learning rate, {rates[0]:g}. "
            "It was not tuned for each of them, so a difference may come from the step size."
        )
    text = listed(f"{rate:g}" for rate in rates)
    return f"The runs use different learning rates: {text}."


def _diverged(found: Findings) -> str:
    count = int((found.planned["status"] == "diverged").sum())
    if not count:
        return ""
    metric = found.contrast.metric if found.contrast is not None else next(iter(SCORES))
    worst = worst_score(metric)
    if math.isnan(worst):
        text = f"{metric} has no worst value, so they are left out of its differences"
    else:
        text = f"they count as the worst score ({significant(worst)}) in every mean and difference"
    runs = counted(count, "run")
    return f"{runs} diverged before the final evaluation; {text}."


def _devices(found: Findings) -> str:
    devices = sorted(set(found.done["device"]) - {""})
    if len(devices) < 2:
        return ""
    return f"The runs used different devices ({listed(devices)}): samples/s are not comparable."


def _floors(found: Findings) -> list[str]:
    said = []
    for floor in found.floors:
        a, b = floor.formats
        head = (
            f"{a} and {b} are the same grid up to a power of two, so their runs form an A/A pair: "
        )
        compared = counted(len(floor.differences), "comparison")
        if floor.largest == 0:
            said.append(
                f"{head}{compared}, all equal. The arithmetic adds no noise; how much a seed "
                "changes is another matter."
            )
        else:
            said.append(
                f"{head}{compared}, at most {score(floor.largest)} apart. A difference of that "
                "size elsewhere may be noise as well."
            )
    return said


def _leftover(found: Findings) -> str:
    left = ~found.results["planned"] & (found.results["stage"] == "final")
    count = int(left.sum())
    if not count:
        return ""
    runs = f"{counted(count, 'run')} of other settings"
    return f"The folder also holds {runs}, which the suite as last run does not ask for: left out."


def reference_note(found: Findings) -> str:
    """What relative throughput is relative to."""
    reference = reference_condition(found.results, found.contrast)
    return f"Speed is relative to {reference}." if reference is not None else ""
