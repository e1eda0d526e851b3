"""Words and numbers that sections and renderers share; sections of any author may import them.

None claims more than the numbers do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from altgrad_core.analysis.numbers import (
    MINUS,
    NONE,
    Spread,
    counted,
    listed,
    percent,
    score,
    significant,
    spread,
    with_spread,
)
from altgrad_core.interfaces.section import Findings

__all__ = [
    "LEVEL",
    "MINUS",
    "NONE",
    "VERDICTS",
    "Spread",
    "counted",
    "difference_text",
    "from_to",
    "group_names",
    "group_noun",
    "interval_text",
    "listed",
    "metric_label",
    "named",
    "number_range",
    "percent",
    "quoted",
    "score",
    "sides",
    "significant",
    "spread",
    "verdict_word",
    "with_spread",
]

LEVEL = "95\N{NO-BREAK SPACE}%"
"""The nominal coverage of the report's intervals."""

VERDICTS = {
    "benefit": "benefit",
    "harm": "harm",
    "equivalent": "equivalent",
    "undecided": "cannot tell",
    "too few seeds": "too few seeds",
    "censored": "censored",
    "refused": "not comparable",
    "unfinished": "not finished",
    "nothing to test": "nothing to test",
}
"""What a reader is told for each verdict of the table of effects."""

ROLES = {"reference": "reference", "identical": "identical grid", "placebo": "placebo"}

_NAMED = 3
"""More groups than these are counted by format, where formats have several."""


def metric_label(found: Findings, column: str) -> str:
    """A score of the tables as a reader calls it: ``final/test/f1_micro`` -> ``F1 micro``.

    The name itself where the task declares no such metric.
    """
    name = column.rpartition("/")[2].partition("@")[0]
    labels = {metric.name: metric.label for metric in found.metrics}
    return labels.get(column) or labels.get(name) or column


def sides(found: Findings) -> str:
    """``manifold_adamw against adamw``; empty without a question."""
    asked = found.question
    return f"{asked.treatment} against {asked.baseline}" if asked is not None else ""


def group_noun(found: Findings) -> str:
    """What a group is called: a format, where nothing but formats tells the groups apart."""
    return "setting" if found.effects["setting"].astype(bool).any() else "format"


def interval_text(low: float, high: float) -> str:
    """``+0.0100 to +0.0300``; a dash where there is none."""
    if math.isnan(low) or math.isnan(high):
        return NONE
    return f"{score(low, signed=True)} to {score(high, signed=True)}"


def difference_text(mean: float, low: float = math.nan, high: float = math.nan) -> str:
    """``+0.0200 (95 % interval +0.0100 to +0.0300)``."""
    text = score(mean, signed=True)
    return text if math.isnan(low) else f"{text} ({LEVEL} interval {interval_text(low, high)})"


def from_to(first: float, last: float) -> str:
    """``41.3 → 8.01``; a dash where neither was measured."""
    if math.isnan(first) and math.isnan(last):
        return NONE
    return f"{significant(first)} → {significant(last)}"


def verdict_word(effect: Mapping[str, Any]) -> str:
    """The verdict on a row of the table of effects in a word or two; of a control what it is."""
    verdict, role = str(effect["verdict"]), str(effect["role"])
    return VERDICTS.get(verdict, verdict) if verdict else ROLES.get(role, role)


def named(names: Iterable[str], most: int = 6) -> str:
    """``a, b and c``; of many the first few, and how many more. Empty for none."""
    known = list(names)
    if len(known) <= most + 1:
        return listed(known) if known else ""
    return f"{', '.join(known[:most])} and {len(known) - most} more"


def quoted(label: str) -> str:
    """A group's name in a sentence: in quotation marks where it has commas of its own."""
    return f"“{label}”" if ", " in label else label


def group_names(chosen: Sequence[Mapping[str, Any]], every: Sequence[Mapping[str, Any]]) -> str:
    """Names of rows of the table of effects; of many the formats, and how many settings of each."""
    names = [quoted(str(row["group"])) for row in chosen]
    total = Counter(str(row["format"]) for row in every)
    if len(chosen) <= _NAMED or max(total.values(), default=1) == 1:
        return named(names)
    if len(chosen) == len(every):
        return f"all {len(every)} settings"
    return listed(
        f"{fmt} ({'all' if count == total[fmt] else f'{count} of'} {total[fmt]} settings)"
        for fmt, count in Counter(str(row["format"]) for row in chosen).items()
    )


def number_range(numbers: Sequence[int]) -> str:
    """``3``, ``2 to 5``."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
