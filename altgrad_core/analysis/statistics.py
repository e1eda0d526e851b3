"""What paired differences over seeds can bear. The tests are scipy's and statsmodels'; the policy is ours.

Each function takes *gains*: one number per seed, treatment against baseline, positive where the
treatment is better. The policy:

* The **t interval and the paired t test** come first: exact for normal differences, and on the safe
  side for symmetric ones with heavy tails. The exact **sign-flip test** assumes symmetry alone and
  stands beside it; with n seeds its p is at least ``2 / 2**n``, so it cannot decide at the sizes that
  people run.
* **Below five seeds** (:data:`MIN_SEEDS`) nothing is tested: there are estimates and intervals, no p.
* **Differences that are all but equal** carry no test: a spread of 0 among runs is no evidence that
  the variance is 0. They count as equal where their range is below a millionth of the largest of
  them, or below a unit in the fifth digit of the scores (``resolution``).
* **Holm** over the family that was planned: what cannot be tested counts in it, and is rejected by
  nobody. Groups that are one hypothesis under several names enter once, with the largest of their p.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

ALPHA = 0.05
"""The level of a report's tests; its intervals are those of 1 − ``ALPHA``."""
MIN_SEEDS = 5
"""Below this many pairs nothing is shown."""
_EQUAL = 1e-6
"""Differences whose range is this small, relative to the largest, are equal."""
RESOLUTION = 1e-5
"""Differences that vary by less than this part of the scores are equal, too."""
_FLIPS = 2**14
"""Up to this many sign flips all are counted; beyond, as many are drawn by a fixed generator."""
_CAP = 1000
_POWER = 0.8


@dataclass(frozen=True)
class Summary:
    """One group's gains.

    ``low`` and ``high`` are the 1 − ``ALPHA`` t interval of the mean (the mean itself where there is
    no spread, NaN below two gains). ``p`` and ``p_sign_flip`` are two-sided, NaN where nothing was
    tested.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float
    p: float
    p_sign_flip: float
    improved: int

    @property
    def effect_size(self) -> float:
        """``mean / std``, without units; NaN without a spread."""
        return self.mean / self.std if self.std > 0 else math.nan


def summarise(gains: Sequence[float], *, resolution: float = 0.0) -> Summary:
    """Describe and test one group's gains; ``resolution`` is a range that is as good as none.

    Raises ``ValueError`` for a gain that is not finite: a run without a result has none.
    """
    values = np.asarray(gains, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"every gain must be finite: {values.tolist()}")
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    std = spread(values, resolution)
    low = high = mean if std == 0 else math.nan
    p = flips = math.nan
    if std > 0:
        found = stats.ttest_1samp(values, 0.0)
        interval = found.confidence_interval(1 - ALPHA)
        low, high = float(interval.low), float(interval.high)
        if n >= MIN_SEEDS:
            p, flips = float(found.pvalue), sign_flip_p(values)
    return Summary(n, mean, std, low, high, p, flips, int((values > 0).sum()))


def spread(values: Sequence[float] | np.ndarray, resolution: float = 0.0) -> float:
    """The sample standard deviation (divisor n − 1): 0 for equal values, NaN below two."""
    found = np.asarray(values, dtype=np.float64)
    if len(found) < 2:
        return math.nan
    if np.ptp(found) <= max(_EQUAL * float(np.abs(found).max()), resolution):
        return 0.0
    return float(found.std(ddof=1))


def sign_flip_p(gains: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of the sign-flip test of the mean; exact up to 14 gains."""
    values = np.asarray(gains, dtype=np.float64)
    found = stats.permutation_test(
        (values,),
        lambda x, axis: np.abs(np.mean(x, axis=axis)),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_FLIPS,
        batch=4096,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def tost_p(gains: Sequence[float], margin: float, *, resolution: float = 0.0) -> float:
    """p of the two one-sided tests that the mean lies within ±``margin``; NaN where untestable."""
    values = np.asarray(gains, dtype=np.float64)
    if len(values) < MIN_SEEDS or not spread(values, resolution) > 0:
        return math.nan
    return float(DescrStatsW(values).ttost_mean(-margin, margin)[0])


def greater_p(gains: Sequence[float], *, resolution: float = 0.0) -> float:
    """One-sided p of the paired t test that the mean is above 0; NaN where untestable."""
    values = np.asarray(gains, dtype=np.float64)
    if len(values) < MIN_SEEDS or not spread(values, resolution) > 0:
        return math.nan
    return float(stats.ttest_1samp(values, 0.0, alternative="greater").pvalue)


def holm_adjusted(p_values: Sequence[float] | pd.Series[float]) -> list[float]:
    """Holm's (1979) step-down adjustment, in the order given.

    statsmodels' ``multipletests`` says the same, and collects garbage at each call (0.1 s here).
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    factors = np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return [float(value) for value in adjusted]


def holm(
    p_values: Mapping[str, float], classes: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Each hypothesis' p, adjusted by Holm over the distinct ones.

    ``p_values`` holds the whole family, with NaN where nothing was tested: it counts, as 1. Those of
    one class (``classes``: name -> class; by itself where it is not named) are one hypothesis, which
    has the largest p of its members.
    """
    p = pd.Series(p_values, dtype="float64")
    classes = classes or {}
    member = p.index.map(lambda name: classes.get(name, name))
    distinct = p.groupby(member, sort=False).max()
    adjusted = dict(zip(distinct.index, holm_adjusted(distinct.fillna(1.0)), strict=True))
    found = pd.Series([adjusted[one] for one in member], p.index, dtype="float64")
    return {str(name): float(value) for name, value in found.where(p.notna()).items()}


def best_p(
    gains: Mapping[str, Mapping[int, float]], *, resolution: float = 0.0
) -> tuple[str, float]:
    """The group with the largest mean gain, and the p of its gaining more than every other.

    Against each other group a one-sided paired t test over the seeds that both have; all of them
    must reject (intersection–union: the largest p counts), and since the group was picked out of k,
    that p is multiplied by k (Bonferroni over the candidates). Then the chance of naming a group of
    which another is as good or better is at most the level, whatever the gains are. NaN where there
    is no other group, or one of them cannot be tested against. Without any group: ``("", nan)``.

    Source: Berger 1982, *Technometrics* 24, 295-300 (intersection–union); Hsu 1984, *Annals of
    Statistics* 12, 1136-1144 (the question).
    """
    means = {name: float(np.mean(list(one.values()))) for name, one in gains.items() if one}
    if not means:
        return "", math.nan
    best = max(means, key=lambda name: means[name])
    found = []
    for name, other in gains.items():
        if name != best:
            seeds = [seed for seed in gains[best] if seed in other]
            ahead = [gains[best][seed] - other[seed] for seed in seeds]
            found.append(greater_p(ahead, resolution=resolution))
    if not found or any(math.isnan(p) for p in found):
        return best, math.nan
    return best, min(1.0, len(gains) * max(found))


def seeds_needed(effect_size: float, *, alpha: float = ALPHA) -> float:
    """The fewest seeds with which the two-sided paired t test shows an effect at power 0.8; inf above 1000."""
    if math.isnan(effect_size):
        return math.nan
    solver, effect = TTestPower(), abs(effect_size)
    if solver.power(effect, _CAP, alpha) < _POWER:
        return math.inf
    low, high = 1, _CAP  # the power is reached at high, and not at low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high) if solver.power(effect, middle, alpha) < _POWER else (low, middle)
        )
    return float(high)


def unseen_rate(n: int) -> float:
    """The largest rate of an event that was seen in none of ``n`` runs (about ``3 / n``); 1 for none.

    The exact upper limit of Clopper and Pearson 1934.
    """
    return 1 - ALPHA ** (1 / n) if n > 0 else 1.0


def mean_of(values: Iterable[float]) -> float:
    """The mean of the values that are not NaN; NaN for none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
