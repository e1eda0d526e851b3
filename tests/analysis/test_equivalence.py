"""The equivalence test: against statsmodels, and its size and power over simulated seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from altgrad_core.analysis.equivalence import tost
from altgrad_core.analysis.paired import paired_summary

differences = st.lists(st.floats(-1, 1), min_size=2, max_size=9).filter(lambda v: np.ptp(v) > 1e-3)


def upper(rate: float, draws: int) -> float:
    """What the share of hits exceeds with probability 1e-4 at most."""
    return float(stats.binom.interval(1 - 1e-4, draws, rate)[1] / draws)


@given(differences, st.floats(0.01, 2))
def test_p_is_that_of_statsmodels(values: list[float], margin: float) -> None:
    found = tost(paired_summary(values), margin)
    witness = DescrStatsW(np.array(values)).ttost_mean(-margin, margin)[0]
    assert found.p == pytest.approx(witness, rel=1e-6, abs=1e-12)


@given(differences, st.floats(0.01, 2), st.sampled_from([0.01, 0.05, 0.1]))
def test_p_and_interval_say_the_same(values: list[float], margin: float, alpha: float) -> None:
    found = tost(paired_summary(values), margin, alpha=alpha)
    witness = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 2 * alpha)
    assert (found.low, found.high) == pytest.approx((witness.low, witness.high), abs=1e-9)
    assert found.smallest_margin == max(abs(found.low), abs(found.high))
    if abs(margin - found.smallest_margin) > 1e-9:
        assert (found.p <= alpha) == (margin >= found.smallest_margin)
    assert tost(paired_summary(values), found.smallest_margin, alpha=alpha).p == pytest.approx(
        alpha
    )


def test_a_large_p_is_not_equivalence() -> None:
    scattered, close = paired_summary([-0.2, 0.3, -0.1]), paired_summary([-0.002, 0.003, -0.001])
    assert scattered.t_p > 0.9
    assert tost(scattered, 0.02).p > 0.4
    assert close.t_p > 0.9
    assert tost(close, 0.02).p < 0.01


@pytest.mark.parametrize("values", [[], [0.1], [0.0, 0.0, 0.0]])
def test_nothing_is_equivalent_without_a_spread(values: list[float]) -> None:
    found = tost(paired_summary(values), 0.5)
    assert math.isnan(found.p)
    assert math.isnan(found.smallest_margin)


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan, math.inf])
def test_a_margin_is_above_zero(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        tost(paired_summary([0.1, 0.2]), margin)


def test_alpha_is_below_a_half() -> None:
    with pytest.raises(ValueError, match="alpha"):
        tost(paired_summary([0.1, 0.2]), 0.1, alpha=0.5)


@pytest.mark.parametrize(("effect", "std"), [(0.02, 0.002), (-0.02, 0.002), (0.02, 0.02)])
def test_its_size_at_the_margin(effect: float, std: float) -> None:
    """An effect as large as the margin is called equivalent in 5 % of cases: no more, and no fewer
    where the margin is wide enough to be a boundary of its own."""
    draws = np.random.default_rng(31).normal(effect, std, (4000, 5))
    rate = np.mean([tost(paired_summary(row), 0.02).p <= 0.05 for row in draws])
    low, high = stats.binom.interval(1 - 1e-4, len(draws), 0.05)
    assert rate <= high / len(draws)
    if std < 0.01:
        assert rate >= low / len(draws)


def test_it_finds_equivalence_where_there_is_room_for_it() -> None:
    draws = np.random.default_rng(32).normal(0.0, 0.005, (500, 5))
    assert np.mean([tost(paired_summary(row), 0.02).p <= 0.05 for row in draws]) > 0.95
