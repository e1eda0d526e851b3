"""The paired summary: worked by hand, against scipy, and against simulated seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from altgrad_core.analysis.paired import paired_summary, sign_flip_p, smallest_sign_flip_p

FALSE_ALARM = 1e-4
"""The chance that a simulation below fails although the code is right."""
finite = st.floats(-1, 1).filter(lambda x: x == 0 or abs(x) > 1e-6)


def band(rate: float, draws: int) -> tuple[float, float]:
    """Where the share of hits falls with probability 1 − FALSE_ALARM."""
    low, high = stats.binom.interval(1 - FALSE_ALARM, draws, rate)
    return low / draws, high / draws


def test_three_differences_by_hand() -> None:
    found = paired_summary([0.01, 0.02, 0.03])
    assert (found.n, found.improved, found.share_improved) == (3, 3, 1.0)
    assert found.mean == pytest.approx(0.02)
    assert found.std == pytest.approx(0.01)
    assert found.standard_error == pytest.approx(0.01 / math.sqrt(3))
    assert found.effect_size == pytest.approx(2.0)
    # t = 2·√3 with 2 degrees of freedom: p = 1 − t / √(t² + 2); the quantile is 4.3027.
    t = 2 * math.sqrt(3)
    assert found.t_p == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert found.low == pytest.approx(0.02 - 4.302652730 * 0.01 / math.sqrt(3))
    assert found.high == pytest.approx(0.02 + 4.302652730 * 0.01 / math.sqrt(3))
    assert found.sign_flip_p == found.sign_flip_floor == 0.25


@given(st.lists(finite, min_size=2, max_size=12), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_interval_and_p_are_those_of_scipy(values: list[float], confidence: float) -> None:
    found = paired_summary(values, confidence=confidence)
    if found.degenerate:
        return
    witness = stats.ttest_1samp(values, 0.0)
    interval = witness.confidence_interval(confidence)
    assert found.t_p == pytest.approx(witness.pvalue, rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "p"),
    [
        ([5.0], 1.0),
        ([1.0, 2.0], 0.5),
        ([1.0, -1.0], 1.0),
        ([1.0, 2.0, 4.0, 8.0, 16.0], 2 / 32),
        ([1.0, 2.0, 4.0, 8.0, -1.0], 6 / 32),  # |Σ| = 14 again by turning both ones; 16 by one more
        (
            [1.0, 1.0, 1.0, -1.0],
            10 / 16,
        ),  # ties: 4 ways to have one minus, and none, and both turned
        ([0.1, 0.2, 0.3, -0.3, 0.3], 14 / 32),  # |Σ| ≥ 0.6, in sums that binary fractions blur
        ([0.0, 0.0], 1.0),
        ([0.0, 1.0, 2.0], 0.5),
    ],
)
def test_sign_flips_counted_by_hand(values: list[float], p: float) -> None:
    assert sign_flip_p(values) == p


@given(st.lists(st.integers(-6, 6), min_size=2, max_size=9))
def test_sign_flips_are_counted_as_scipy_counts_them(values: list[int]) -> None:
    scaled = [value / 10 for value in values]
    witness = stats.permutation_test(
        (np.array(values, dtype=float),), np.sum, permutation_type="samples", n_resamples=10_000
    )
    assert sign_flip_p(scaled) == pytest.approx(min(1.0, witness.pvalue), abs=1e-12)


def test_many_sign_flips_are_sampled_and_repeatable() -> None:
    values = np.random.default_rng(3).normal(0.4, 1.0, 30)
    p = sign_flip_p(values)
    assert p == sign_flip_p(values)
    # Half the sums of each half of the data, matched: every one of the 2^30 flips, counted.
    halves = []
    for part in (values[:15], values[15:]):
        sums = np.zeros(1)
        for value in part:
            sums = np.concatenate([sums - value, sums + value])
        halves.append(np.sort(sums))
    reached = abs(values.sum()) * (1 - 1e-12)
    above = len(halves[1]) - np.searchsorted(halves[1], reached - halves[0])
    exact = 2 * above.sum() / 2**30
    low, high = band(exact, 99_999)
    assert low <= p <= high
    assert sign_flip_p(np.full(200, 0.1)) == 1 / 100_000


def test_the_smallest_p_of_the_sign_flip_test() -> None:
    assert [smallest_sign_flip_p(n) for n in (0, 1, 2, 5, 6)] == [1.0, 1.0, 0.5, 0.0625, 0.03125]
    found = paired_summary([0.0, 0.0, 0.1, 0.2, 0.3])
    assert found.nonzero == 3
    assert found.sign_flip_p == found.sign_flip_floor == 0.25


def test_no_difference_and_a_single_one() -> None:
    none, one = paired_summary([]), paired_summary([0.02])
    assert (none.n, none.improved, one.n, one.mean, one.improved) == (0, 0, 1, 0.02, 1)
    for value in (none.mean, none.share_improved, none.sign_flip_p, none.standard_error):
        assert math.isnan(value)
    for found in (none, one):
        assert found.degenerate
        for value in (found.std, found.low, found.high, found.t_p, found.effect_size):
            assert math.isnan(value)
    assert one.sign_flip_p == 1.0


@pytest.mark.parametrize(
    ("values", "mean", "p"),
    [
        ([0.0] * 5, 0.0, 1.0),
        ([0.25] * 5, 0.25, 0.0625),
        # Equal in decimals; in binary they differ in the last places.
        ([0.8 - 0.7, 0.3 - 0.2, 0.5 - 0.4, 0.9 - 0.8, 0.2 - 0.1], 0.1, 0.0625),
    ],
)
def test_equal_differences_have_a_point_and_no_t_test(
    values: list[float], mean: float, p: float
) -> None:
    found = paired_summary(values)
    assert found.degenerate
    assert found.std == 0.0
    assert found.low == found.high == found.mean == pytest.approx(mean)
    assert math.isnan(found.t_p)
    assert math.isnan(found.effect_size)
    assert found.sign_flip_p == p


def test_a_tiny_spread_is_a_spread() -> None:
    assert not paired_summary([1e-6, 2e-6, 3e-6]).degenerate
    assert not paired_summary([0.01, 0.01 + 1e-9]).degenerate


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_missing_result_is_not_a_difference(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        paired_summary([0.1, bad])
    with pytest.raises(ValueError, match="finite"):
        sign_flip_p([bad])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_confidence_is_a_probability(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        paired_summary([0.1, 0.2], confidence=confidence)


@given(st.lists(finite, min_size=1, max_size=10))
def test_turning_the_question_around_turns_the_answer(values: list[float]) -> None:
    found, turned = paired_summary(values), paired_summary([-value for value in values])
    same = ("n", "std", "t_p", "sign_flip_p", "nonzero")
    for name in same:
        assert getattr(found, name) == pytest.approx(getattr(turned, name), nan_ok=True)
    assert found.mean == -turned.mean
    assert found.low == pytest.approx(-turned.high, nan_ok=True)
    assert found.improved + turned.improved == found.nonzero


@pytest.mark.parametrize("n", [2, 5])
def test_the_interval_covers_as_often_as_it_says(n: int) -> None:
    draws = np.random.default_rng(11).normal(0.01, 0.02, (4000, n))
    found = [paired_summary(row) for row in draws]
    low, high = band(0.95, len(draws))
    assert low <= np.mean([s.low <= 0.01 <= s.high for s in found]) <= high


def test_the_t_test_errs_on_the_safe_side_where_either_side_may_diverge() -> None:
    """Symmetric differences with heavy tails: each side scores 0 in one run of ten."""
    generator = np.random.default_rng(12)
    sides = generator.normal(0.6, 0.01, (4000, 2, 5))
    sides[generator.random(sides.shape) < 0.1] = 0.0
    found = [paired_summary(row) for row in sides[:, 1] - sides[:, 0]]
    assert np.mean([s.t_p <= 0.05 for s in found]) <= band(0.05, len(found))[1]


@pytest.mark.parametrize("tails", [2.0, 30.0])
def test_the_sign_flip_test_is_uniform_on_its_lattice(tails: float) -> None:
    """Exact for any symmetric distribution: at n = 5 each of k/16, k = 1 … 16, is as likely."""
    draws = np.random.default_rng(13).standard_t(tails, (4000, 5))
    p = np.array([sign_flip_p(row) for row in draws])
    counts = np.bincount((16 * p).astype(int), minlength=17)
    assert counts[0] == 0
    assert counts.sum() == len(p)
    assert np.array_equal(16 * p, np.round(16 * p))
    assert stats.chisquare(counts[1:]).pvalue > FALSE_ALARM
    for alpha in (0.05, 0.0625, 0.125):
        assert np.mean(p <= alpha) <= band(alpha, len(p))[1]
    assert not (p <= 0.05).any()
