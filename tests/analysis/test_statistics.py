"""The statistics of gains: witnesses, limits of what is tested, and levels by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from altgrad_core.analysis.statistics import (
    ALPHA,
    MIN_SEEDS,
    best_p,
    greater_p,
    holm,
    holm_adjusted,
    seeds_needed,
    sign_flip_p,
    summarise,
    tost_p,
    unseen_rate,
)

GAINS = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=5, max_size=9)
SAMPLE = [0.031, 0.012, 0.044, -0.008, 0.027, 0.019]


class TestOneGroup:
    def test_the_t_test_is_that_of_two_paired_samples(self) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.normal(size=(2, 7))
        found = summarise(b - a)
        witness = stats.ttest_rel(b, a)
        assert found.p == pytest.approx(witness.pvalue)
        low, high = witness.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((low, high))
        assert greater_p(b - a) == pytest.approx(
            stats.ttest_rel(b, a, alternative="greater").pvalue
        )

    @pytest.mark.parametrize("n", [5, 6, 9])
    def test_sign_flips_are_counted_one_by_one(self, n: int) -> None:
        values = np.random.default_rng(n).normal(0.4, 1, n).round(2)
        sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True)))
                for signs in itertools.product((1, -1), repeat=n)]  # fmt: skip
        expected = np.mean([total >= abs(values.sum()) - 1e-12 for total in sums])
        assert sign_flip_p(values) == pytest.approx(expected)

    def test_many_sign_flips_are_drawn_and_repeatable(self) -> None:
        values = np.random.default_rng(1).normal(0.5, 1, 30)
        assert sign_flip_p(values) == sign_flip_p(values)
        assert sign_flip_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.01)

    def test_equivalence_is_two_one_sided_t_tests(self) -> None:
        values, margin = np.array(SAMPLE), 0.05
        error = values.std(ddof=1) / math.sqrt(len(values))
        above = stats.t.sf((values.mean() + margin) / error, len(values) - 1)
        below = stats.t.cdf((values.mean() - margin) / error, len(values) - 1)
        assert tost_p(SAMPLE, margin) == pytest.approx(max(above, below))

    @pytest.mark.parametrize(
        ("effect", "alpha"), [(0.5, 0.05), (1.2, 0.05), (1.2, 0.01), (4, 0.05)]
    )
    def test_seeds_needed_reach_the_power_and_one_fewer_does_not(
        self, effect: float, alpha: float
    ) -> None:
        def power(n: int) -> float:
            critical = stats.t.ppf(1 - alpha / 2, n - 1)
            shifted = stats.nct(n - 1, effect * math.sqrt(n))
            return float(shifted.sf(critical) + shifted.cdf(-critical))

        needed = int(seeds_needed(effect, alpha=alpha))
        assert power(needed) >= 0.8
        assert needed == 2 or power(needed - 1) < 0.8

    def test_effects_too_small_for_a_thousand_seeds(self) -> None:
        assert seeds_needed(0.01) == math.inf
        assert math.isnan(seeds_needed(math.nan))

    def test_the_rule_of_three(self) -> None:
        assert unseen_rate(100) == pytest.approx(0.03, abs=0.001)
        assert unseen_rate(5) == pytest.approx(stats.binomtest(0, 5).proportion_ci(0.9).high)
        assert unseen_rate(0) == 1

    @pytest.mark.parametrize("n", range(MIN_SEEDS))
    def test_few_gains_have_no_p(self, n: int) -> None:
        found = summarise(SAMPLE[:n])
        tests = found.p, found.p_sign_flip, tost_p(SAMPLE[:n], 1.0), greater_p(SAMPLE[:n])
        assert all(math.isnan(p) for p in tests)

    @pytest.mark.parametrize("dust", [0.0, 1e-17, 1e-9, 1e-7])
    def test_gains_that_are_all_but_equal_have_no_p(self, dust: float) -> None:
        values = [0.02 + dust * k for k in range(5)]
        found = summarise(values, resolution=1e-5 * 0.6)
        assert (found.std, found.low) == (0, found.mean)
        assert math.isnan(found.p)
        assert math.isnan(tost_p(values, 0.5, resolution=1e-5 * 0.6))

    def test_a_small_spread_is_a_spread(self) -> None:
        found = summarise([0.006 + 0.0001 * k for k in range(5)], resolution=1e-5 * 0.6)
        assert found.p < 1e-4

    def test_what_is_no_number_is_refused(self) -> None:
        with pytest.raises(ValueError, match="finite"):
            summarise([0.1, math.inf])

    @given(GAINS)
    def test_swapping_the_sides_negates_and_order_does_not_matter(self, gains: list[float]) -> None:
        found, other = summarise(gains), summarise([-gain for gain in reversed(gains)])
        assert other.mean == pytest.approx(-found.mean, abs=1e-12)
        assert (other.low, other.high) == pytest.approx((-found.high, -found.low), nan_ok=True)
        assert other.p == pytest.approx(found.p, nan_ok=True)
        assert other.p_sign_flip == pytest.approx(found.p_sign_flip, nan_ok=True)


class TestFamily:
    def test_holm_is_that_of_statsmodels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gc.collect", lambda: 0)  # multipletests collects at each call
        draws = np.random.default_rng(0)
        for size in (1, 2, 3, 8) * 50:
            p = draws.choice([0.0, 0.01, 0.02, 0.5, 1.0, *draws.random(3)], size)
            assert holm_adjusted(p) == pytest.approx(list(multipletests(p, method="holm")[1]))

    def test_holm_by_hand(self) -> None:
        assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
            {"a": 0.03, "b": 0.06, "c": 0.06}
        )

    def test_what_was_not_tested_counts(self) -> None:
        found = holm({"a": 0.01, "b": math.nan, "c": 0.02})
        assert (found["a"], found["c"]) == pytest.approx((0.03, 0.04))
        assert math.isnan(found["b"])
        assert math.isnan(holm({"a": math.nan})["a"])
        assert holm({}) == {}

    def test_one_hypothesis_of_two_names_enters_once_with_the_larger_p(self) -> None:
        found = holm({"a": 0.01, "twin": 0.02, "c": 0.04}, {"twin": "a"})
        assert found == pytest.approx({"a": 0.04, "twin": 0.04, "c": 0.04})

    def test_the_best_is_compared_with_every_other(self) -> None:
        gains = {
            "x": dict(enumerate([0.05, 0.06, 0.055, 0.052, 0.058])),
            "y": dict(enumerate([0.01, 0.013, 0.012, 0.008, 0.011])),
            "z": dict(enumerate([0.03, 0.02, 0.05, 0.01, 0.02])),
        }
        name, p = best_p(gains)
        ahead = [gains["x"][s] - gains["z"][s] for s in range(5)]
        assert name == "x"
        assert p == pytest.approx(3 * stats.ttest_1samp(ahead, 0, alternative="greater").pvalue)

    def test_there_is_no_best_of_one_or_none(self) -> None:
        assert best_p({})[0] == ""
        name, p = best_p({"x": {0: 0.1}})
        assert name == "x"
        assert math.isnan(p)


def draws(means: list[float], n: int, size: int, rho: float, seed: int) -> NDArray[np.float64]:
    """Gains (size, groups, seeds): normal, correlated over groups since these share their seeds."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(size, 1, n)), rng.normal(size=(size, len(means), n))
    found: NDArray[np.float64] = np.array(means)[:, None] + (
        math.sqrt(rho) * common + math.sqrt(1 - rho) * own
    )
    return found


def most(level: float, size: int) -> float:
    """What a share of that level may be in a simulation of that size."""
    return level + 3 * math.sqrt(level * (1 - level) / size)


class TestLevels:
    """Each rule in numpy, over many suites at once, after it was seen to be what the code does."""

    SIZE = 20_000

    @pytest.mark.parametrize("n", [5, 8])
    def test_the_interval_covers(self, n: int) -> None:
        gains = draws([0.3], n, self.SIZE, 0, n)[:, 0]
        interval = stats.ttest_1samp(gains, 0, axis=1).confidence_interval(0.95)
        for row in range(20):
            found = summarise(gains[row])
            assert (found.low, found.high) == pytest.approx((interval.low[row], interval.high[row]))
        covered = np.mean((interval.low <= 0.3) & (interval.high >= 0.3))
        assert covered == pytest.approx(0.95, abs=0.006)

    @pytest.mark.parametrize(("groups", "rho"), [(6, 0.0), (6, 0.5), (2, 0.0)])
    def test_the_familywise_error_of_one_look(self, groups: int, rho: float) -> None:
        gains = draws([0.0] * groups, 5, self.SIZE, rho, groups)
        p = stats.ttest_1samp(gains, 0, axis=2).pvalue
        shown = groups * p.min(axis=1) <= ALPHA
        for row in range(20):
            raw = {str(k): summarise(gains[row, k]).p for k in range(groups)}
            assert (min(holm(raw).values()) <= ALPHA) == shown[row]
        assert shown.mean() <= most(ALPHA, self.SIZE)

    @pytest.mark.parametrize(
        "means",
        [[0.0, 0.0], [0.0, 0.0, -9.0, -9.0], [0.0] * 6, [0.0, 0.0, -0.1, -0.3, -0.6], [0.0, -0.2]],
        ids=["two alike", "two ahead", "all alike", "close", "one ahead"],
    )
    @pytest.mark.parametrize("rho", [0.0, 0.6])
    def test_the_chance_that_one_is_called_best_which_is_not(
        self, means: list[float], rho: float
    ) -> None:
        k = len(means)
        gains = draws(means, 5, self.SIZE, rho, k)
        best = gains.mean(axis=2).argmax(axis=1)
        ahead = gains[np.arange(self.SIZE), best][:, None] - gains
        t = np.divide(
            ahead.mean(axis=2) * math.sqrt(5),
            ahead.std(axis=2, ddof=1),
            out=np.full((self.SIZE, k), np.inf),
            where=np.arange(k) != best[:, None],
        )
        p = k * stats.t.sf(t, 4).max(axis=1)
        for row in range(20):
            named, found = best_p({str(i): dict(enumerate(gains[row, i])) for i in range(k)})
            assert (int(named), found) == (best[row], pytest.approx(min(1, p[row])))
        top = [i for i, mean in enumerate(means) if mean == max(means)]
        wrong = (p <= ALPHA) & ((len(top) > 1) | (best != top[0]))
        assert wrong.mean() <= most(ALPHA, self.SIZE)

    def test_bonferroni_over_one_fewer_would_not_hold(self) -> None:
        """Why the best of k is tested at level/k: of two that are alike, one would be named in 10 %."""
        gains = draws([0.0, 0.0], 5, self.SIZE, 0, 2)
        p = stats.ttest_1samp(gains[:, 0] - gains[:, 1], 0, axis=1).pvalue / 2
        assert np.mean(p <= ALPHA) > 0.09
