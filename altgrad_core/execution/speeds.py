"""What every ``speed`` command finds: rows of times with their ratios to a rival, in one JSON form.

A *ratio* is the median over rounds of the time to that of the rival in the same round, with quartiles.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Generic, TypeVar

SCHEMA = 1
"""Version of the JSON form."""
_LONG = 10.0
"""Seconds."""

R = TypeVar("R")


@dataclass(frozen=True)
class Timing:
    """Milliseconds (median and quartiles), and the ratio to the rival, for which it is 1."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    ratio: float
    ratio_q1: float
    ratio_q3: float


@dataclass(frozen=True)
class Speeds(Generic[R]):
    """What was measured, on what, and what was left out and why."""

    keys: ClassVar[tuple[str, ...]]
    """The names of what tells rows apart."""
    rows: tuple[R, ...]
    left_out: Mapping[str, str]
    environment: Mapping[str, Any]
    rounds: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; rows of two files that agree in what ``keys`` names compare by their ``ratio``."""
        return {"schema": SCHEMA, "keys": [*self.keys], **asdict(self)}


def told(rounds: int, log: Callable[[str], None]) -> Iterator[int]:
    """1 to ``rounds``; after each that lasted, a word on how long the others will."""
    for number in range(1, rounds + 1):
        began = time.monotonic()
        yield number
        spent = time.monotonic() - began
        if number < rounds and spent > _LONG:
            left = spent * (rounds - number)
            how_long = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
            log(f"round {number} of {rounds}: {spent:.0f} s; the others take about {how_long}")


def summary(
    own: Sequence[float], rival: Sequence[float], work: float = 1.0
) -> tuple[float, float, float, float, float, float]:
    """The fields of :class:`Timing`, of milliseconds for each round; the rival does ``work`` times as much."""
    ratios = [work * a / b for a, b in zip(own, rival, strict=True)]
    (q1, median, q3), (low, ratio, high) = _quartiles(own), _quartiles(ratios)
    return median, q1, q3, ratio, low, high


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return (short(values[0]),) * 3
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return short(q1), short(median), short(q3)


def short(value: float) -> float:
    """To six digits."""
    return float(f"{value:.6g}")
