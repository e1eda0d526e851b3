"""What a task measures: each number's label, which way is better, and how bad it can get.

Nothing else in the house knows a score by its name: planning, tuning and reports look it up here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from altgrad_core.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]*")


@dataclass(frozen=True)
class Metric:
    """One number that ``Task.evaluate`` returns.

    name:
        its key in ``Evaluation.metrics``, e.g. ``perplexity``.
    label:
        what a reader calls it, e.g. ``F1 micro``.
    direction:
        whether a ``higher`` or a ``lower`` value is better.
    worst:
        the worst value that it can take, which a diverged run counts as; None where there is none,
        as with a loss.
    primary:
        whether it decides where a suite names no other. One metric of a task does.
    curve:
        whether reports draw it over the steps, from the evaluations on validation data.

    Raises ``ValueError`` for a name with a slash or a space, an empty label, another direction, and
    a worst value that is not finite.
    """

    name: str
    label: str
    direction: Literal["higher", "lower"]
    worst: float | None = None
    primary: bool = False
    curve: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be used."""
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"a metric's name is of letters, digits and '_', not {self.name!r}")
        if not isinstance(self.label, str) or not self.label.strip():
            raise ValueError(f"the metric {self.name!r} needs a label")
        if self.direction not in ("higher", "lower"):
            raise ValueError(
                f"the direction of the metric {self.name!r} is 'higher' or 'lower', "
                f"not {self.direction!r}"
            )
        if self.worst is not None and not math.isfinite(self.worst):
            raise ValueError(
                f"the worst value of the metric {self.name!r} is {self.worst}: give a number, or "
                "None where there is no worst value"
            )

    @property
    def sign(self) -> int:
        """1 where a higher value is better, −1 where a lower one is."""
        return 1 if self.direction == "higher" else -1

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is better than ``b``; any number is better than NaN, and NaN than nothing."""
        if math.isnan(a) or math.isnan(b):
            return math.isnan(b) and not math.isnan(a)
        return self.sign * a > self.sign * b

    def possible(self, value: float) -> bool:
        """Whether ``value`` is not beyond the worst one; NaN is no value at all."""
        return not math.isnan(value) and (self.worst is None or not self.better(self.worst, value))


def fault(metrics: Sequence[Metric]) -> str:
    """What is wrong with the metrics that one task declares, or an empty string."""
    if not metrics:
        return (
            "it declares no metrics: give its offer metrics=(Metric(...), ...), one of them primary"
        )
    names = [metric.name for metric in metrics]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        return f"it declares the metric {twice!r} twice"
    primary = [metric.name for metric in metrics if metric.primary]
    if len(primary) != 1:
        said = ", ".join(primary) or "none"
        return (
            f"exactly one of its metrics must be primary, and there is {said} of {', '.join(names)}"
        )
    return ""


Split = Literal["validation", "test"]

CORE: Mapping[str, Metric] = {
    "train/all/loss": Metric("loss", "Training loss", "lower", curve=True),
    "throughput/all/samples_per_second": Metric("samples_per_second", "Samples/s", "higher"),
    "throughput/all/cumulative_samples_per_second": Metric(
        "cumulative_samples_per_second", "Samples/s", "higher"
    ),
    "throughput/all/tokens_per_second": Metric("tokens_per_second", "Tokens/s", "higher"),
    "throughput/all/cumulative_tokens_per_second": Metric(
        "cumulative_tokens_per_second", "Tokens/s", "higher"
    ),
}
"""What every run has, whatever its task."""

_EVALUATED = ("final/test/", "final/validation/", "validation/all/")


def column(metric: Metric, split: Split = "test") -> str:
    """Where results have the final value of a task's metric."""
    return f"final/{split}/{metric.name}"


def primary_column(metrics: Sequence[Metric], split: Split = "test") -> str:
    """Where results have what decides if nothing else is named.

    Raises ``UserError`` where there is none: the tasks of a suite may have none in common.
    """
    found = next((metric for metric in metrics if metric.primary), None)
    if found is None:
        names = ", ".join(metric.name for metric in metrics) or "none"
        raise UserError(f"the suite's tasks have no primary metric in common: name one of {names}")
    return column(found, split)


def declared(name: str, metrics: Iterable[Metric]) -> Metric | None:
    """The declaration behind a column or curve of the results; None where there is none.

    ``metrics`` are what the task declares.
    """
    place, _, _ = name.partition("@")
    if place in CORE:
        return CORE[place]
    for family in _EVALUATED:
        if name.startswith(family):
            wanted = name.removeprefix(family)
            return next((metric for metric in metrics if metric.name == wanted), None)
    return None


def shared(tasks: Mapping[str, Sequence[Metric]]) -> tuple[Metric, ...]:
    """The metrics that all tasks of a suite declare, primary where it is so for each of them.

    ``tasks``: name -> what it declares. Raises ``UserError`` where two tasks mean different things
    by one name.
    """
    (first, mine), *others = tasks.items()
    found = {metric.name: metric for metric in mine}
    for name, metrics in others:
        theirs = {metric.name: metric for metric in metrics}
        found = {
            key: replace(one, primary=one.primary and theirs[key].primary)
            for key, one in found.items()
            if key in theirs
        }
        for key, one in found.items():
            two = theirs[key]
            if (one.direction, one.worst) != (two.direction, two.worst):
                raise UserError(
                    f"the tasks {first} and {name} declare the metric {key!r} differently "
                    f"({one.direction} is better, worst {one.worst}; {two.direction}, worst "
                    f"{two.worst}): they cannot be in one suite."
                )
    return tuple(found.values())
