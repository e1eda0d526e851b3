"""The cautions, and the numbers in them measured again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from altgrad_core.analysis.paired import paired_summary
from altgrad_core.analysis.small_samples import cautions, seeds_for_sign_flip, unseen_rate

FIVE = paired_summary([0.01, 0.02, 0.03, 0.015, 0.005])


def test_seeds_for_the_sign_flip_test() -> None:
    assert seeds_for_sign_flip(0.05) == 6
    assert seeds_for_sign_flip(0.0625) == 5
    assert seeds_for_sign_flip(0.05 / 7) == 9
    with pytest.raises(ValueError, match="alpha"):
        seeds_for_sign_flip(0.0)


def test_what_was_not_seen_may_still_happen() -> None:
    assert unseen_rate(0) == 1.0
    assert unseen_rate(5) == pytest.approx(0.4507, abs=1e-4)
    assert unseen_rate(300) == pytest.approx(3 / 300, rel=0.01)
    witness = stats.binomtest(0, 12, alternative="less").proportion_ci(0.95).high
    assert unseen_rate(12) == pytest.approx(witness)
    with pytest.raises(ValueError, match="confidence"):
        unseen_rate(5, confidence=1.0)


def test_five_seeds() -> None:
    unseen, lattice, normality = cautions(FIVE, family=7, diverged=0)
    assert "No run of 5 seeds diverged" in unseen
    assert "up to 45.1 %" in unseen
    assert lattice == (
        "With 5 seeds the sign-flip test cannot give a p below 0.0625: 6 seeds are the fewest that "
        "can reach 0.05, and 9 after Holm over 7 formats."
    )
    assert "88 % instead of 95 %" in normality


def test_six_seeds_are_enough_alone_and_not_among_seven() -> None:
    six = paired_summary([0.01, 0.02, 0.03, 0.015, 0.005, 0.02])
    assert not any("sign-flip" in text for text in cautions(six))
    assert "9 after Holm over 7 formats" in cautions(six, family=7)[0]


def test_fewer_than_two_seeds_and_equal_ones() -> None:
    (none,) = cautions(paired_summary([]), diverged=0)
    (one,) = cautions(paired_summary([0.1]), diverged=0)
    equal, worst = cautions(paired_summary([0.0] * 3), diverged=3)
    assert "No seed" in none
    assert "cannot be told from chance" in one
    assert "not evidence of zero variance" in equal
    assert worst.endswith("worst score: 3.")
    assert len(cautions(paired_summary([0.0] * 3), diverged=0)) == 1


def test_a_diverged_run_comes_first() -> None:
    assert cautions(FIVE, diverged=1)[0].startswith("1 of 5 pairs has a diverged run")
    assert cautions(FIVE, diverged=2)[0].startswith("2 of 5 pairs have a diverged run")
    assert "diverge" not in " ".join(cautions(FIVE))


def test_many_seeds_need_no_caution() -> None:
    values = np.random.default_rng(1).normal(0.01, 0.01, 40).tolist()
    assert cautions(paired_summary(values), family=7, diverged=0) == ()


def test_zero_differences_weaken_the_sign_flip_test() -> None:
    found = paired_summary([0.0, 0.0, 0.0, 0.01, 0.02, 0.03, 0.01, 0.02])
    (lattice,) = cautions(found)
    assert lattice.startswith("With 8 seeds (3 without a difference)")
    assert "below 0.0625" in lattice


def test_tests_that_disagree() -> None:
    outlier = paired_summary([0.01, 0.012, 0.011, 0.013, 0.009, 0.01, 0.012, 0.2])
    assert outlier.t_p > 0.05 > outlier.sign_flip_p
    assert "The two tests disagree at 0.05" in cautions(outlier)[-1]
    assert not any("disagree" in text for text in cautions(FIVE))


# The numbers of the module's docstring. Bands are 4 standard errors wide on each side at most.


def covered(draws: np.ndarray, mean: float) -> float:
    interval = stats.ttest_1samp(draws, mean, axis=1).pvalue
    return float(np.mean(~(interval < 0.05)))


def test_coverage_of_skewed_differences() -> None:
    draws = np.random.default_rng(61).exponential(size=(40_000, 5))
    assert covered(draws, 1.0) == pytest.approx(0.88, abs=0.01)


def test_coverage_where_the_treatment_diverges_now_and_then() -> None:
    generator = np.random.default_rng(62)
    draws = generator.normal(0.0, 0.01, (40_000, 5))
    draws[generator.random(draws.shape) < 0.1] = -0.6
    assert covered(draws, -0.06) == pytest.approx(0.41, abs=0.01)
    assert np.mean((draws > -0.3).all(axis=1)) == pytest.approx(0.59, abs=0.01)


@pytest.mark.parametrize(("n", "coverage"), [(5, 0.835), (10, 0.90), (20, 0.93)])
def test_coverage_of_the_percentile_bootstrap(n: int, coverage: float) -> None:
    generator = np.random.default_rng(63)
    draws = generator.normal(size=(2000, n))
    picked = generator.multinomial(n, [1 / n] * n, size=1000)
    means = draws @ picked.T / n
    low, high = np.percentile(means, [2.5, 97.5], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(coverage, abs=0.03)


@pytest.mark.parametrize(("n", "power"), [(5, 0.17), (8, 0.34), (20, 0.84)])
def test_power_of_a_check_of_normality(n: int, power: float) -> None:
    draws = np.random.default_rng(64).exponential(size=(2000, n))
    found = np.mean([stats.shapiro(row).pvalue <= 0.05 for row in draws])
    assert found == pytest.approx(power, abs=0.045)
