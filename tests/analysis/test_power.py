"""Seeds needed and effects detectable: against statsmodels, and against simulated experiments."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from statsmodels.stats.power import TTestPower

from altgrad_core.analysis import power
from altgrad_core.analysis.paired import paired_summary
from altgrad_core.analysis.power import (
    detectable_effect,
    effect_size_interval,
    plan_seeds,
    seeds_needed,
    t_test_power,
)


@pytest.mark.parametrize("effect", [0.0, 0.05, -0.3, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("n", [2, 3, 5, 12, 300])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 7])
def test_power_is_that_of_statsmodels(effect: float, n: int, alpha: float) -> None:
    witness = TTestPower().power(abs(effect), n, alpha)
    if math.isnan(witness):  # it underflows where the power is near 1
        witness = 1.0
    assert t_test_power(effect, n, alpha=alpha) == pytest.approx(witness, abs=1e-7)


def test_without_an_effect_the_power_is_alpha() -> None:
    assert t_test_power(0.0, 5, alpha=0.03) == pytest.approx(0.03)
    assert seeds_needed(0.0).n is None


@pytest.mark.parametrize("effect", [0.1, 0.25, 0.5, 1.0, -1.5])
def test_seeds_needed_are_those_of_statsmodels(effect: float) -> None:
    witness = TTestPower().solve_power(effect_size=abs(effect), alpha=0.05, power=0.8)
    assert seeds_needed(effect).n == math.ceil(witness)


def test_the_smallest_number_is_the_smallest() -> None:
    for effect in (0.2, 0.7, 1.3, 2.5, 6.0, 11.0):
        n = seeds_needed(effect).n
        assert n is not None
        assert t_test_power(effect, n) >= 0.8
        assert n == 2 or t_test_power(effect, n - 1) < 0.8
    assert seeds_needed(1000.0).n == 2


def test_too_many_seeds_are_not_counted() -> None:
    assert str(seeds_needed(0.05)) == ">1000"
    assert str(seeds_needed(1.0)) == "10"
    assert str(seeds_needed(1.0, cap=9)) == ">9"
    assert str(seeds_needed(1.0, cap=10)) == "10"


@pytest.mark.parametrize("n", [2, 5, 10, 100])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 7])
def test_the_detectable_effect_has_the_wanted_power(n: int, alpha: float) -> None:
    effect = detectable_effect(n, alpha=alpha)
    assert t_test_power(effect, n, alpha=alpha) == pytest.approx(0.8, abs=1e-6)
    if n > 2:  # with 2 it does not converge
        witness = TTestPower().solve_power(nobs=n, alpha=alpha, power=0.8)
        assert effect == pytest.approx(witness, rel=1e-5)


@lru_cache
def quantiles(dof: int) -> NDArray[np.float64]:
    """Of the χ² distribution, each as likely as the next."""
    return np.asarray(special.chdtri(dof, (np.arange(20_000) + 0.5) / 20_000))


@pytest.mark.parametrize("dof", [1, 4, 99])
@pytest.mark.parametrize("noncentrality", [0.5, 5.0, 30.0, 60.0, 120.0])
@pytest.mark.parametrize("ratio", [-10.0, -1.0, -0.1, 0.01, 0.5, 1.0, 1.5, 10.0])
def test_the_distribution_in_both_tails(dof: int, noncentrality: float, ratio: float) -> None:
    """The library's underflows to NaN in places, and then says nothing of a power near 1."""
    t = ratio * noncentrality
    # T ≤ t  ⇔  Z ≤ t·√(V/dof) − δ, summed over the quantiles of V.
    witness = special.ndtr(t * np.sqrt(quantiles(dof) / dof) - noncentrality).mean()
    assert power._cdf(t, dof, noncentrality) == pytest.approx(witness, abs=1e-4)
    assert power._cdf(-t, dof, -noncentrality) == pytest.approx(1 - witness, abs=1e-4)


@pytest.mark.parametrize("effect", [0.4, 0.9, 1.6])
def test_the_seeds_needed_show_the_effect_as_often_as_wanted(effect: float) -> None:
    n = seeds_needed(effect).n
    assert n is not None
    draws = np.random.default_rng(51).normal(effect, 1.0, (20_000, n))
    found = float(np.mean(stats.ttest_1samp(draws, 0.0, axis=1).pvalue <= 0.05))
    assert found >= 0.78
    assert found == pytest.approx(t_test_power(effect, n), abs=0.012)  # 4 standard errors


def test_the_detectable_effect_is_detected() -> None:
    draws = np.random.default_rng(52).normal(detectable_effect(5), 1.0, (20_000, 5))
    found = np.mean(stats.ttest_1samp(draws, 0.0, axis=1).pvalue <= 0.05)
    assert found == pytest.approx(0.8, abs=0.012)


@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_the_interval_of_the_effect_size_covers(effect: float) -> None:
    draws = np.random.default_rng(53).normal(effect, 1.0, (1000, 5))
    ends = [effect_size_interval(paired_summary(row)) for row in draws]
    low, high = stats.binom.interval(1 - 1e-4, len(draws), 0.95)
    assert low <= sum(a <= effect <= b for a, b in ends) <= high


def test_interval_and_t_test_agree_on_zero() -> None:
    for row in np.random.default_rng(54).normal(1.0, 1.0, (50, 5)):
        summary = paired_summary(row)
        low, high = effect_size_interval(summary)
        assert (low <= 0 <= high) == (summary.t_p >= 0.05)
        assert low < summary.effect_size < high


def test_a_plan_from_five_seeds() -> None:
    summary = paired_summary([0.01, -0.02, 0.03, 0.01, 0.0])
    plan = plan_seeds(summary)
    assert plan is not None
    assert plan.effect_size == pytest.approx(summary.mean / summary.std)
    assert plan.effect_low < 0 < plan.effect_high
    assert (str(plan.needed), str(plan.fewest), str(plan.most)) == ("74", "8", ">1000")
    assert plan.detectable == pytest.approx(1.681997 * summary.std, rel=1e-5)
    stricter = plan_seeds(summary, alpha=0.05 / 7, power=0.9)
    assert stricter is not None
    assert stricter.detectable > plan.detectable


def test_a_plan_does_not_depend_on_the_sign_or_the_unit() -> None:
    values = [0.01, 0.02, 0.05, 0.03]
    plans = [plan_seeds(paired_summary([f * v for v in values])) for f in (1.0, -1.0, 100.0)]
    shown = {(str(p.fewest), str(p.needed), str(p.most)) for p in plans if p is not None}
    assert shown == {("4", "6", ">1000")}


@pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.1, 0.1]])
def test_no_plan_without_a_spread(values: list[float]) -> None:
    assert plan_seeds(paired_summary(values)) is None
    assert all(math.isnan(end) for end in effect_size_interval(paired_summary(values)))


def test_what_cannot_be_asked() -> None:
    for call in (
        lambda: t_test_power(1.0, 1),
        lambda: t_test_power(1.0, 5, alpha=0.0),
        lambda: seeds_needed(1.0, power=1.0),
        lambda: seeds_needed(1.0, power=0.04),
        lambda: seeds_needed(1.0, alpha=1.0),
        lambda: seeds_needed(math.nan),
        lambda: seeds_needed(1.0, cap=1),
        lambda: detectable_effect(1),
    ):
        with pytest.raises(ValueError):
            call()
