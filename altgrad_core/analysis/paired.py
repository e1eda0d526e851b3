"""One group's differences over seeds: their mean, how sure it is, and two tests of "no effect".

A difference is one number per seed, treatment against baseline, *oriented so that positive is
better*. Each function of this module takes these numbers and nothing else.

* The **t interval and its p** come first. They are exact if the differences are normal. If the
  two sides are exchangeable within a seed (the sharpest form of "no effect") the differences are
  symmetric, and for symmetric ones with heavy tails, such as a run that diverges now and then on
  either side, the t test errs on the safe side. It errs on the other side for skewed differences:
  at 5 seeds from an exponential distribution the 95 % interval covers the mean in 88 % of cases.
* The **sign-flip test** assumes symmetry alone and is exact for any n. Its price is a lattice: no
  p is below ``2 / 2**n``, so with 5 seeds it cannot reach 0.05. It is read beside the t test.
* **Differences that are all equal** carry no test. A spread of 0 among runs is not evidence that
  the variance is 0: the seed may have had no say, the score may be too coarse, or both sides may
  have diverged in every seed and count as the worst score twice. The summary is then
  ``degenerate``: the interval is the point (a description, not a claim of certainty) and the t
  test's p is NaN, neither 0 (no evidence of an effect) nor 1 (nor of its absence).

Sources: Student 1908 (t); Fisher 1935, *The Design of Experiments*, §21 (sign flips); Phipson and
Smyth 2010 (a p from random flips is never 0).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from altgrad_core.analysis.numbers import spread

_EXACT = 20
"""Up to this many differences other than 0 every flip is counted; 2**19 sums take 4 MiB."""
_DRAWS = 99_999
"""Random flips where there are more."""
_ROUNDING = 1e-12
"""Two sums of differences this close, relative to the sum of their sizes, are the same sum."""
_EQUAL = 1e-9
"""Differences whose range is this small, relative to the largest, are equal up to rounding."""


@dataclass(frozen=True)
class PairedSummary:
    """What ``n`` paired differences say; see the module for what each number can bear.

    Attributes:
        n: Differences, one per seed.
        mean: Their mean, in the units of the metric; NaN for none.
        std: Sample standard deviation (divisor n − 1); NaN below 2 differences, 0 if all are equal.
        low: Lower end of the t interval ``mean ± t(n−1, (1+confidence)/2) · std / √n``; NaN below
            2 differences, ``mean`` if all are equal.
        high: Upper end of it.
        confidence: Its nominal coverage.
        t_p: Two-sided p of the paired t test of mean 0; NaN where ``degenerate``.
        sign_flip_p: Two-sided p of the sign-flip test; NaN for no differences.
        improved: Differences above 0.
        nonzero: Differences other than 0.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float
    confidence: float
    t_p: float
    sign_flip_p: float
    improved: int
    nonzero: int

    @property
    def degenerate(self) -> bool:
        """Whether there is no spread to test with: fewer than 2 differences, or all equal."""
        return not self.std > 0

    @property
    def standard_error(self) -> float:
        """``std / √n``: of the mean, in the units of the metric; NaN below 2 differences."""
        return self.std / math.sqrt(self.n) if self.n else math.nan

    @property
    def effect_size(self) -> float:
        """``mean / std``, without units (Cohen's d_z); NaN where ``degenerate``."""
        return math.nan if self.degenerate else self.mean / self.std

    @property
    def share_improved(self) -> float:
        """``improved / n``: the share of seeds that improve, 0 to 1; NaN for none."""
        return self.improved / self.n if self.n else math.nan

    @property
    def sign_flip_floor(self) -> float:
        """The smallest p these differences could give: flipping a 0 changes nothing."""
        return smallest_sign_flip_p(self.nonzero)


def paired_summary(differences: Iterable[float], *, confidence: float = 0.95) -> PairedSummary:
    """Summarise one group's paired differences, positive where the treatment is better.

    Raises:
        ValueError: For a NaN or infinite difference (a run without a result has no difference;
            leave it out and say so) and for a confidence outside (0, 1).
    """
    values = _checked(differences)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    found = spread(values.tolist())
    n, mean, std = found.n, found.mean, found.std
    if n >= 2 and np.ptp(values) <= _EQUAL * np.abs(values).max():
        std = 0.0
    half = t_p = math.nan
    if std > 0:
        error = std / math.sqrt(n)
        half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * error
        t_p = 2 * float(special.stdtr(n - 1, -abs(mean) / error))
    elif std == 0:
        half = 0.0
    return PairedSummary(
        n=n,
        mean=mean,
        std=std,
        low=mean - half,
        high=mean + half,
        confidence=confidence,
        t_p=t_p,
        sign_flip_p=sign_flip_p(values),
        improved=int((values > 0).sum()),
        nonzero=int((values != 0).sum()),
    )


def sign_flip_p(differences: Iterable[float]) -> float:
    """Two-sided p of the sign-flip test: the share of the 2^n flips with ``|Σ ±d| ≥ |Σ d|``.

    The null hypothesis is that each difference is as likely with either sign. Sums that tie with
    the observed one count, so the p is never too small. Above 20 differences other than 0 the
    share is estimated as ``(1 + hits) / (1 + draws)`` from 99,999 flips of a fixed generator: the
    same data give the same report. NaN for no differences, 1 if all are 0.

    Raises:
        ValueError: For a NaN or infinite difference.
    """
    values = _checked(differences)
    if not len(values):
        return math.nan
    sizes = np.abs(values[values != 0])
    reached = abs(math.fsum(values)) - _ROUNDING * float(sizes.sum())
    if len(sizes) > _EXACT:
        return (1 + int((_random_sums(sizes) >= reached).sum())) / (1 + _DRAWS)
    sums = sizes[:1]  # the first sign stays: |Σ| is the same with every sign turned
    for size in sizes[1:]:
        sums = np.concatenate([sums - size, sums + size])
    return float((np.abs(sums) >= reached).mean()) if len(sums) else 1.0


def smallest_sign_flip_p(n: int) -> float:
    """``2 / 2**n``, the smallest two-sided p of the sign-flip test of ``n`` differences."""
    return min(1.0, 2.0 ** (1 - n))


def _random_sums(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    generator = np.random.default_rng(0)
    sums = np.zeros(_DRAWS)
    for size in sizes:
        sums += size * generator.choice((-1.0, 1.0), _DRAWS)
    return np.abs(sums)


def _checked(differences: Iterable[float]) -> NDArray[np.float64]:
    values = np.array(list(differences), dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"differences must be a row of numbers, not of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"every difference must be finite: {values.tolist()}")
    return values
