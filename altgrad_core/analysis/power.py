"""How many seeds would show an effect of the size seen, and how small an effect these seeds show.

For planning the *next* experiment. The power of this one "at the effect seen" is a function of its
p-value and says nothing new, so it is not offered.

An effect seen in few seeds is itself uncertain, and the seeds it calls for more so: with 5 seeds
the 95 % interval of the standardised effect is ±0.9 around it at best, and its estimate is 25 %
too large on average. So the number of seeds comes with the numbers at both ends of that interval,
and an effect that was picked because it was the largest needs more than the middle one says.

Everything follows from the noncentral t distribution: with effect ``d = mean / std``, the
t statistic of n paired differences has n − 1 degrees of freedom and noncentrality ``d·√n``.
Under Holm over m formats the first hurdle is α/m: plan with that.

Sources: Cohen 1988, *Statistical Power Analysis*; Hoenig and Heisey 2001 on power at the effect
seen; Steiger and Fouladi 1997 on intervals for a standardised effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy import optimize, special

from altgrad_core.analysis.paired import PairedSummary


@dataclass(frozen=True)
class SeedsNeeded:
    """A number of seeds; ``n`` is None where it is above ``cap``. ``str`` gives ``12``, ``>1000``."""

    n: int | None
    cap: int

    def __str__(self) -> str:
        return f">{self.cap}" if self.n is None else str(self.n)


@dataclass(frozen=True)
class SeedPlan:
    """What to plan with, after one group's differences.

    Attributes:
        effect_size: ``mean / std`` of the differences, without units.
        effect_low: Lower end of the interval of the effect size, at the summary's confidence.
        effect_high: Upper end of it.
        needed: Seeds for the effect seen.
        fewest: Seeds, if the effect is as large as the interval allows.
        most: Seeds, if it is as small as the interval allows; above the cap if that includes 0.
        detectable: The smallest mean difference that this many seeds show at the wanted power, in
            the units of the metric, if ``std`` is as seen.
        power: The wanted power.
        alpha: The level of the two-sided t test.
    """

    effect_size: float
    effect_low: float
    effect_high: float
    needed: SeedsNeeded
    fewest: SeedsNeeded
    most: SeedsNeeded
    detectable: float
    power: float
    alpha: float


def plan_seeds(
    summary: PairedSummary, *, power: float = 0.8, alpha: float = 0.05, cap: int = 1000
) -> SeedPlan | None:
    """Plan from one group's differences; None where they have no spread to plan with.

    Raises:
        ValueError: For a power not in (alpha, 1), an alpha outside (0, 1), or a cap below 2.
    """
    _check(power, alpha)
    if summary.degenerate:
        return None
    low, high = effect_size_interval(summary)
    ends = sorted((abs(low), abs(high)))
    smallest = 0.0 if low <= 0 <= high else ends[0]
    effect = summary.effect_size
    return SeedPlan(
        effect_size=effect,
        effect_low=low,
        effect_high=high,
        needed=seeds_needed(effect, power=power, alpha=alpha, cap=cap),
        fewest=seeds_needed(ends[1], power=power, alpha=alpha, cap=cap),
        most=seeds_needed(smallest, power=power, alpha=alpha, cap=cap),
        detectable=detectable_effect(summary.n, power=power, alpha=alpha) * summary.std,
        power=power,
        alpha=alpha,
    )


def t_test_power(effect_size: float, n: int, *, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test: ``P(|T| > t(n−1, 1−α/2))``, T noncentral with ``d·√n``.

    Raises:
        ValueError: For ``n`` below 2, or alpha outside (0, 1).
    """
    if n < 2:
        raise ValueError(f"a t test needs 2 pairs or more, not {n}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    dof, noncentrality = n - 1, abs(effect_size) * math.sqrt(n)
    critical = float(special.stdtrit(dof, 1 - alpha / 2))
    upper = 1 - _cdf(critical, dof, noncentrality)
    return min(1.0, upper + _cdf(-critical, dof, noncentrality))


def seeds_needed(
    effect_size: float, *, power: float = 0.8, alpha: float = 0.05, cap: int = 1000
) -> SeedsNeeded:
    """The smallest n whose :func:`t_test_power` reaches ``power``, found by bisection.

    Raises:
        ValueError: For a power not in (alpha, 1), an alpha outside (0, 1), a cap below 2, or an
            effect size that is not finite.
    """
    _check(power, alpha)
    if cap < 2 or not math.isfinite(effect_size):
        raise ValueError(f"needs a finite effect size and a cap of 2 or more: {effect_size}, {cap}")
    if t_test_power(effect_size, cap, alpha=alpha) < power:
        return SeedsNeeded(None, cap)
    low, high = 1, cap  # power is reached at high, and not at low
    while high - low > 1:
        middle = (low + high) // 2
        if t_test_power(effect_size, middle, alpha=alpha) < power:
            low = middle
        else:
            high = middle
    return SeedsNeeded(high, cap)


def detectable_effect(n: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest standardised effect that ``n`` pairs show at the wanted power.

    Raises:
        ValueError: For ``n`` below 2, a power not in (alpha, 1), or an alpha outside (0, 1).
    """
    _check(power, alpha)
    return _root(lambda effect: t_test_power(effect, n, alpha=alpha) - power)


def effect_size_interval(summary: PairedSummary) -> tuple[float, float]:
    """The exact interval of ``mean / std`` in the population, at the summary's confidence.

    Its ends are the effects under which the observed t statistic is at the upper and lower
    ``(1 − confidence) / 2`` quantile of its noncentral t distribution. (NaN, NaN) where degenerate.
    """
    if summary.degenerate:
        return math.nan, math.nan
    dof, root_n, tail = summary.n - 1, math.sqrt(summary.n), (1 - summary.confidence) / 2
    t = summary.effect_size * root_n

    def end(probability: float) -> float:
        """Where ``P(T ≤ t) = probability``; the probability falls as the noncentrality grows."""
        turned = _cdf(t, dof, 0.0) < probability
        sign = -1.0 if turned else 1.0
        return sign * _root(lambda size: sign * (probability - _cdf(t, dof, sign * size)))

    return end(1 - tail) / root_n, end(tail) / root_n


def _cdf(t: float, dof: int, noncentrality: float) -> float:
    """``P(T ≤ t)`` of the noncentral t distribution.

    Where the library's value underflows to NaN, in the tails, it is 0 or 1 up to rounding.
    """
    value = float(special.nctdtr(dof, noncentrality, t))
    return float(t > noncentrality) if math.isnan(value) else value


def _root(rising: Callable[[float], float]) -> float:
    """The root above 0 of a rising function; 0 if it is not below 0 there."""
    if rising(0.0) >= 0:
        return 0.0
    high = 1.0
    while rising(high) < 0:
        high *= 2
    return float(optimize.brentq(rising, 0.0, high, xtol=1e-9))


def _check(power: float, alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    if not alpha < power < 1:
        raise ValueError(f"power must lie between alpha and 1, not {power}")
