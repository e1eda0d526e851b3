"""Words and numbers that sections and renderers share; sections of any author may import them.

None claims more than the numbers do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from altgrad_core.analysis.numbers import (
    MINUS,
    NONE,
    Spread,
    counted,
    group_names,
    interval_text,
    listed,
    named,
    percent,
    quoted,
    score,
    significant,
    spread,
    with_spread,
)
from altgrad_core.analysis.statistics import MIN_SEEDS
from altgrad_core.interfaces.section import Findings

__all__ = [
    "LEVEL",
    "MINUS",
    "MIN_SEEDS",
    "NONE",
    "VERDICTS",
    "Spread",
    "counted",
    "from_to",
    "group_names",
    "group_noun",
    "interval_text",
    "listed",
    "metric_label",
    "named",
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


def from_to(first: float, last: float) -> str:
    """``41.3 → 8.01``; a dash where neither was measured."""
    if math.isnan(first) and math.isnan(last):
        return NONE
    return f"{significant(first)} → {significant(last)}"


def verdict_word(effect: Mapping[str, Any]) -> str:
    """The verdict on a row of the table of effects in a word or two; of a control what it is."""
    verdict, role = str(effect["verdict"]), str(effect["role"])
    return VERDICTS.get(verdict, verdict) if verdict else ROLES.get(role, role)
