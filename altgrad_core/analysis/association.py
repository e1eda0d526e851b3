"""Whether the benefit goes along with a property of the formats, and how little that may mean.

A row per *format*: its benefit (the mean difference over seeds) and a property such as mantissa
bits, range or stall ratio. With the handful of formats that there are, the p of a correlation comes
from counting: of all ``n!`` ways to hand out the benefits, how many correlate as strongly? At 8
formats these are 40,320, and each is tried.

What it cannot do:

* Fewer than 5 formats cannot give a p of 0.05, whatever they do (``2/4! = 0.083``).
* The test takes the benefits as exchangeable, as if all were known equally well. Where one format's
  seeds scatter more, its place in the order is a matter of luck.
* Formats are not drawn from a population, and properties go along with each other: on a ladder of
  fixed width, mantissa and exponent bits are one property with two names. Look at
  :func:`~altgrad_core.analysis.surface.collinearity` before crediting one of them.

Formats with the same grid enter once, or a pair of equal points would pose as evidence.

Source: Pitman 1937, *Supplement to the JRSS* 4, 225-232, for the permutation test.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from altgrad_core.analysis.multiplicity import equal_classes, holm

_EXACT = 8
"""Up to this many formats every permutation is counted."""
_DRAWS = 99_999
"""Random permutations where there are more."""
_ROUNDING = 1e-12
"""Two correlations this close are the same."""


@dataclass(frozen=True)
class Correlation:
    """How two rows of numbers go along; all NaN below 3 points or where one row is constant.

    Attributes:
        n: Points.
        pearson: Pearson's r, −1 to 1.
        pearson_p: Its two-sided permutation p.
        spearman: Spearman's ρ: Pearson's r of the ranks, ties sharing their mean rank.
        spearman_p: Its two-sided permutation p.
    """

    n: int
    pearson: float
    pearson_p: float
    spearman: float
    spearman_p: float

    @property
    def exact(self) -> bool:
        """Whether the p-values count every permutation rather than a sample of them."""
        return self.n <= _EXACT


@dataclass(frozen=True)
class Association:
    """The correlation of the benefit with one property of the formats.

    Attributes:
        property: The property's name.
        formats: The formats that entered, one per distinct grid.
        correlation: The correlation over them.
        adjusted_p: Spearman's p after Holm over the properties asked about; NaN if undefined.
        ambiguous: Formats with the same grid as another that differ from it in this property, so
            that the property is of the name and not of the grid; the first one's value was used.
    """

    property: str
    formats: tuple[str, ...]
    correlation: Correlation
    adjusted_p: float
    ambiguous: tuple[tuple[str, ...], ...]


def correlate(x: Sequence[float], y: Sequence[float]) -> Correlation:
    """Pearson's and Spearman's correlation, each with the p of its permutation test.

    ``p`` is the share of the n! permutations whose ``|r|`` is at least the observed one, ties
    counted; above 8 points ``(1 + hits) / (1 + draws)`` from 99,999 permutations of a fixed
    generator.

    Raises:
        ValueError: For rows of different length, or a value that is not finite.
    """
    from scipy.stats import rankdata

    if len(x) != len(y):
        raise ValueError(f"rows of different length: {len(x)} and {len(y)}")
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("every value must be finite")
    pearson, pearson_p = _permuted(a, b)
    spearman, spearman_p = _permuted(rankdata(a), rankdata(b))
    return Correlation(len(a), pearson, pearson_p, spearman, spearman_p)


def associations(
    benefits: Mapping[str, float],
    properties: Mapping[str, Mapping[str, float]],
    equal_pairs: Iterable[tuple[str, str]] = (),
) -> tuple[Association, ...]:
    """Correlate the benefit of each format with each property, ``property -> format -> value``.

    A format without a benefit, or without a value of the property (absent or NaN), is left out of
    that correlation. Formats with equal grids enter as one point: the mean of their benefits, and
    the first one's property. Spearman's p decides, adjusted by Holm over ``properties``: a format
    that collapses is one low rank, but could make any Pearson correlation by itself.
    """
    pairs = tuple(equal_pairs)
    rows = [_points(benefits, values, pairs) for values in properties.values()]
    found = [correlate([p.value for p in row], [p.benefit for p in row]) for row in rows]
    adjusted = holm([correlation.spearman_p for correlation in found])
    return tuple(
        Association(
            property=name,
            formats=tuple(point.members[0] for point in row),
            correlation=correlation,
            adjusted_p=p,
            ambiguous=tuple(point.members for point in row if point.ambiguous),
        )
        for name, row, correlation, p in zip(properties, rows, found, adjusted, strict=True)
    )


@dataclass(frozen=True)
class _Point:
    members: tuple[str, ...]
    value: float
    benefit: float
    ambiguous: bool


def _points(
    benefits: Mapping[str, float],
    values: Mapping[str, float],
    equal_pairs: tuple[tuple[str, str], ...],
) -> list[_Point]:
    nan = math.nan
    known = [
        name
        for name, benefit in benefits.items()
        if not (math.isnan(benefit) or math.isnan(values.get(name, nan)))
    ]
    return [
        _Point(
            members=members,
            value=values[members[0]],
            benefit=math.fsum(benefits[name] for name in members) / len(members),
            ambiguous=any(not math.isclose(values[name], values[members[0]]) for name in members),
        )
        for members in equal_classes(known, equal_pairs)
    ]


def _permuted(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """The correlation of x and y, and its permutation p."""
    a, b = _standardised(x), _standardised(y)
    if len(x) < 3 or a is None or b is None:
        return math.nan, math.nan
    observed = float(a @ b)
    strengths = np.abs(b[_permutations(len(b))] @ a)
    hits = int((strengths >= abs(observed) - _ROUNDING).sum())
    extra = 0 if len(b) <= _EXACT else 1  # the data themselves, which a sample may not hold
    return max(-1.0, min(1.0, observed)), (hits + extra) / (len(strengths) + extra)


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Mean 0 and length 1; None where all values are equal up to rounding."""
    if not len(values) or np.ptp(values) <= _ROUNDING * np.abs(values).max():
        return None
    centred = values - values.mean()
    return np.asarray(centred / np.linalg.norm(centred))


@lru_cache(maxsize=4)
def _permutations(n: int) -> NDArray[np.intp]:
    """All orders of n points, one per row; a fixed sample of them above 8."""
    if n <= _EXACT:
        return np.array(list(itertools.permutations(range(n))), dtype=np.intp)
    rows = np.tile(np.arange(n), (_DRAWS, 1))
    return np.random.default_rng(0).permuted(rows, axis=1)
