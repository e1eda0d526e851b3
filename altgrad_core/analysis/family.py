"""The groups of a suite as the verdict speaks of them: selections, names and numbers in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from altgrad_core.analysis.words import (
    LEVEL,
    counted,
    group_names,
    interval_text,
    quoted,
    score,
    sides,
    significant,
)
from altgrad_core.interfaces.section import Question

Row = Mapping[Any, Any]
"""A row of the table of effects."""


@dataclass(frozen=True)
class Family:
    """A question and the rows of its effects."""

    question: Question
    rows: Sequence[Row]

    @property
    def tested(self) -> list[Row]:
        """The family."""
        return [row for row in self.rows if row["role"] == "tested"]

    def of(self, *verdicts: str) -> list[Row]:
        """The tested groups with one of these verdicts, the largest gain first."""
        found = [row for row in self.tested if row["verdict"] in verdicts]
        return sorted(found, key=_by_gain)

    @property
    def judged(self) -> list[Row]:
        """The tested groups with a difference that means something, the largest gain first."""
        found = [r for r in self.tested if r["n"] and not (r["refused"] or r["censored"])]
        return sorted(found, key=_by_gain)

    @property
    def noun(self) -> str:
        """What a group is called: a format, where nothing but formats tells the groups apart."""
        return "setting" if any(row["setting"] for row in self.rows) else "format"

    @property
    def head(self) -> str:
        """What is compared: sides and metric."""
        lower = ", lower is better" if self.question.declared.direction == "lower" else ""
        return f"{sides(self.question)} in {self.question.declared.label}{lower}"

    def names(self, rows: Sequence[Row]) -> str:
        """Groups in a sentence; of many the formats, and how many settings of each."""
        return group_names(rows, self.rows)

    def seen(self, row: Row) -> str:
        """``+0.0200 (95 % interval …) in e5m2``: in the units of the metric, positive is better."""
        return f"{gain_text(row)} in {quoted(row['group'])}"

    def largest(self) -> str:
        """The largest gain that was seen, with its interval."""
        if not self.judged:
            return "No group has a pair of results yet."
        best = self.judged[0]
        if best["gain"] > 0:
            return f"The largest gain seen is {self.seen(best)}."
        return f"No {self.noun} gains; the best difference is {self.seen(best)}."

    def evidence(self, row: Row) -> str:
        """Difference, interval, p, seeds and how many of them improve."""
        n, improved = int(row["n"]), int(row["improved"])
        better = {0: "none better", n: "all better"}.get(improved, f"{improved} better")
        holm = f"p {significant(row['p_holm'])} after Holm over {int(row['family'])}"
        return f"{gain_text(row)}, {holm}, {counted(n, 'seed')}, {better}"


def gain_text(row: Row) -> str:
    """``+0.0200 (95 % interval +0.0100 to +0.0300)``: positive is better."""
    text = score(row["gain"], signed=True)
    if not row["gain_std"] > 0:
        return text
    return f"{text} ({LEVEL} interval {interval_text(row['low'], row['high'])})"


def _by_gain(row: Row) -> float:
    return -number_or(row["gain"], -math.inf)


def number_or(value: float, otherwise: float) -> float:
    """The value, or something else where it is not known."""
    return otherwise if math.isnan(value) else float(value)
