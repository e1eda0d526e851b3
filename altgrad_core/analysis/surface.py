"""Which of two properties goes with the benefit: collinearity, and least squares on both at once.

Among formats of one width, ``E = width − 1 − M``: mantissa bits and exponent bits (and with them
the range) are one property with two names, r(M, E) = −1, and no analysis of such formats can tell
their effects apart. Formats of several widths can. So the design is checked before it is fitted:
:func:`collinearity` says how well it separates the properties, and :func:`least_squares` refuses
one that does not separate them at all, instead of returning one of infinitely many answers.

Two kinds of error answer two questions, and a report needs both:

* :func:`least_squares` on the mean benefits takes its standard errors from how far the formats lie
  off the plane: *is the benefit a plane over these properties?*
* :func:`coefficients_over_seeds` fits each seed by itself and takes the spread of the coefficients:
  *would new seeds, on these very formats, give the same slope?*

Sources: Belsley, Kuh and Welsch 1980, *Regression Diagnostics* (condition number, VIF); any text on
ordinary least squares.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from altgrad_core.analysis.paired import PairedSummary, paired_summary

INTERCEPT = "intercept"
"""The name of the constant term."""
_SINGULAR = 1e-10
"""Singular values this small, relative to the largest, are 0."""


class NotIdentified(ValueError):
    """The design cannot tell the effects of its columns apart."""


@dataclass(frozen=True)
class PairCorrelation:
    """Pearson's r of two columns; NaN where one is constant."""

    first: str
    second: str
    r: float


@dataclass(frozen=True)
class Collinearity:
    """How well a design separates its columns.

    Attributes:
        pairs: Each pair of columns and its correlation.
        condition_number: The largest singular value over the smallest, of the columns brought to
            mean 0 and length 1: 1 if they are orthogonal, inf if they are dependent. Above 30 it
            is commonly called harmful.
        vif: The variance inflation factor of each column, ``1 / (1 − R²)`` with R² from the other
            columns: how many times as many formats it takes, as against an orthogonal design; inf
            if the others determine it, or if it is constant.
    """

    pairs: tuple[PairCorrelation, ...]
    condition_number: float
    vif: dict[str, float]

    @property
    def identified(self) -> bool:
        """Whether the effects of the columns can be told apart at all."""
        return math.isfinite(self.condition_number)


@dataclass(frozen=True)
class Coefficient:
    """One term of a fit; error, p and partial r are NaN without a degree of freedom left.

    Attributes:
        name: The column, or ``intercept``.
        value: Its coefficient: units of the response per unit of the column, the others held.
        error: Its standard error, from the residuals.
        p: Two-sided p of its t test of 0.
        partial_r: Partial correlation with the response, the other columns held fixed:
            ``t / √(t² + dof)``, −1 to 1.
    """

    name: str
    value: float
    error: float
    p: float
    partial_r: float


@dataclass(frozen=True)
class PlaneFit:
    """A least-squares fit; ``r_squared`` is NaN for a constant response."""

    n: int
    dof: int
    terms: tuple[Coefficient, ...]
    residual_std: float
    r_squared: float

    def __getitem__(self, name: str) -> Coefficient:
        """The term of a column, or of ``intercept``."""
        return {term.name: term for term in self.terms}[name]


def collinearity(columns: Mapping[str, Sequence[float]]) -> Collinearity:
    """Judge the columns of a design, one value per format each, by their correlations.

    Raises:
        ValueError: For no columns, columns of different length, or a value that is not finite.
    """
    design = _matrix(columns)
    names = list(columns)
    centred = design - design.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=0)
    constant = lengths <= _SINGULAR * (np.linalg.norm(design, axis=0) + np.finfo(float).tiny)
    unit = np.where(constant, 0.0, centred / np.where(constant, 1.0, lengths))
    pairs = [
        PairCorrelation(names[i], names[j], _r(unit[:, i], unit[:, j]))
        for i, j in itertools.combinations(range(len(names)), 2)
    ]
    inflation = {name: _inflation(unit, j) for j, name in enumerate(names)}
    return Collinearity(tuple(pairs), _condition(unit), inflation)


def least_squares(response: Sequence[float], columns: Mapping[str, Sequence[float]]) -> PlaneFit:
    """Fit ``response = intercept + Σ coefficient · column``, each format weighing the same.

    ``error² = s² · diag((XᵀX)⁻¹)`` with ``s² = RSS / dof`` and ``dof = n − columns − 1``.

    Raises:
        NotIdentified: Where columns (and the constant) are linearly dependent, or more numerous
            than the formats. The message names the columns.
        ValueError: For lengths that differ, or a value that is not finite.
    """
    y = np.asarray(response, dtype=np.float64)
    design, inverse = _checked_design(columns, len(y))
    if not np.isfinite(y).all():
        raise ValueError("every response must be finite")
    values = inverse @ y
    residuals = y - design @ values
    dof = len(y) - design.shape[1]
    rss = float(residuals @ residuals)
    variance = rss / dof if dof else math.nan
    total = float(((y - y.mean()) ** 2).sum())
    errors = np.sqrt(variance * (inverse**2).sum(axis=1))
    return PlaneFit(
        n=len(y),
        dof=dof,
        terms=tuple(map(_term, [INTERCEPT, *columns], values, errors, itertools.repeat(dof))),
        residual_std=math.sqrt(variance),
        r_squared=1 - rss / total if total > 0 else math.nan,
    )


def coefficients_over_seeds(
    responses: Sequence[Sequence[float]],
    columns: Mapping[str, Sequence[float]],
    *,
    confidence: float = 0.95,
) -> dict[str, PairedSummary]:
    """Fit each seed's benefits by themselves, and summarise each coefficient over the seeds.

    ``responses`` has a row per seed, with a benefit per format. The summaries' sign is that of the
    slope: "improved" counts the seeds in which it is above 0.

    Raises:
        NotIdentified: As in :func:`least_squares`.
        ValueError: For lengths that differ, or a value that is not finite.
    """
    lengths = {len(row) for row in responses}
    if len(lengths) != 1:
        raise ValueError(f"each seed needs a benefit for every format; lengths are {lengths}")
    _, inverse = _checked_design(columns, lengths.pop())
    fits = np.asarray(responses, dtype=np.float64) @ inverse.T
    return {
        name: paired_summary(fits[:, j].tolist(), confidence=confidence)
        for j, name in enumerate([INTERCEPT, *columns])
    }


def _checked_design(
    columns: Mapping[str, Sequence[float]], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The design with its constant column, and its pseudo-inverse; refuses one without full rank."""
    matrix = _matrix(columns)
    if len(matrix) != n:
        raise ValueError(f"{n} responses, but {len(matrix)} values in each column")
    if not collinearity(columns).identified:
        names = ", ".join(columns)
        raise NotIdentified(
            f"these {n} formats cannot tell the effects of {names} apart: the columns are "
            "constant, linearly dependent, or as numerous as the formats. Among formats of one "
            "width the exponent bits follow from the mantissa bits; add formats of other widths."
        )
    design = np.column_stack([np.ones(n), matrix])
    # Columns of equal length first: bits and binades differ in size, and pinv cuts by size.
    lengths = np.linalg.norm(design, axis=0)
    return design, np.linalg.pinv(design / lengths, rcond=1e-15) / lengths[:, None]


def _matrix(columns: Mapping[str, Sequence[float]]) -> NDArray[np.float64]:
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"needs columns of one length, above 0; lengths are {sorted(lengths)}")
    matrix = np.column_stack([np.asarray(v, dtype=np.float64) for v in columns.values()])
    if not np.isfinite(matrix).all():
        raise ValueError("every value of a column must be finite")
    return matrix


def _r(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return max(-1.0, min(1.0, float(a @ b))) if a.any() and b.any() else math.nan


def _condition(unit: NDArray[np.float64]) -> float:
    if unit.shape[0] <= unit.shape[1]:
        return math.inf
    sizes = np.linalg.svd(unit, compute_uv=False)
    return float(sizes[0] / sizes[-1]) if sizes[-1] > _SINGULAR * sizes[0] else math.inf


def _inflation(unit: NDArray[np.float64], column: int) -> float:
    target, others = unit[:, column], np.delete(unit, column, axis=1)
    if not target.any():
        return math.inf
    fitted = others @ np.linalg.lstsq(others, target, rcond=_SINGULAR)[0]
    unexplained = float(((target - fitted) ** 2).sum())
    return 1 / unexplained if unexplained > _SINGULAR else math.inf


def _term(name: str, value: float, error: float, dof: int) -> Coefficient:
    value, error = float(value), float(error)
    if not error > 0:
        return Coefficient(name, value, error, math.nan, math.nan)
    t = value / error
    p = 2 * float(special.stdtr(dof, -abs(t)))
    return Coefficient(name, value, error, p, t / math.sqrt(t * t + dof))
