"""Correlations over a handful of formats: by hand, against scipy, and their false alarms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from altgrad_core.analysis.association import associations, correlate

NAN = math.nan


def test_four_points_by_hand() -> None:
    """Of the 24 orders only the same one and its reverse have |ρ| = 1."""
    found = correlate([1, 2, 3, 4], [1, 2, 3, 10])
    assert (found.n, found.exact) == (4, True)
    assert found.spearman == pytest.approx(1.0)
    assert found.spearman_p == pytest.approx(2 / 24)
    assert found.pearson == pytest.approx(stats.pearsonr([1, 2, 3, 4], [1, 2, 3, 10]).statistic)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=5))
@settings(max_examples=20, deadline=None)
def test_correlations_and_p_are_those_of_scipy(points: list[tuple[int, int]]) -> None:
    x, y = map(list, zip(*points, strict=True))
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    found = correlate(x, y)
    assert found.pearson == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    for p, statistic in ((found.pearson_p, stats.pearsonr), (found.spearman_p, stats.spearmanr)):
        witness = stats.permutation_test(
            (np.array(x, dtype=float),),
            lambda a, statistic=statistic: round(abs(statistic(a, y).statistic), 9),
            permutation_type="pairings",
            alternative="greater",
            n_resamples=1000,
        )
        assert p == pytest.approx(witness.pvalue)


def test_more_points_are_sampled_and_repeatable() -> None:
    generator = np.random.default_rng(71)
    x = generator.normal(size=12)
    y = 0.5 * x + generator.normal(size=12)
    found = correlate(x, y)
    assert not found.exact
    assert found == correlate(x, y)
    assert found.pearson_p == pytest.approx(stats.pearsonr(x, y).pvalue, abs=0.02)
    assert correlate(x, x).pearson_p == 1 / 100_000


@pytest.mark.parametrize(
    ("x", "y"), [([], []), ([1.0], [2.0]), ([1.0, 2.0], [2.0, 3.0]), ([1.0] * 4, [1.0, 2, 3, 4])]
)
def test_no_correlation_without_points_or_spread(x: list[float], y: list[float]) -> None:
    found = correlate(x, y)
    assert math.isnan(found.pearson)
    assert math.isnan(found.spearman_p)


def test_rows_belong_together_and_are_finite() -> None:
    with pytest.raises(ValueError, match="length"):
        correlate([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        correlate([1, 2, NAN], [1, 2, 3])


BENEFITS = {"a": 0.05, "b": 0.03, "b2": 0.01, "c": 0.01, "d": -0.01, "e": -0.04}
LEVELS = {"a": 1.0, "b": 2.0, "b2": 2.0, "c": 3.0, "d": 4.0, "e": 5.0}


def test_formats_with_the_same_grid_are_one_point() -> None:
    (found,) = associations(BENEFITS, {"level": LEVELS}, [("b", "b2")])
    assert found.formats == ("a", "b", "c", "d", "e")
    assert found.ambiguous == ()
    expected = correlate([1, 2, 3, 4, 5], [0.05, 0.02, 0.01, -0.01, -0.04])
    assert found.correlation == expected
    assert found.correlation.spearman_p == pytest.approx(2 / 120)
    assert found.adjusted_p == found.correlation.spearman_p


def test_a_property_of_the_name_and_not_of_the_grid_is_shown() -> None:
    (found,) = associations(BENEFITS, {"level": LEVELS | {"b2": 9.0}}, [("b", "b2")])
    assert found.ambiguous == (("b", "b2"),)
    assert found.correlation.n == 5


def test_what_is_not_known_is_left_out() -> None:
    values = {k: v for k, v in LEVELS.items() if k != "c"} | {"d": NAN}
    (found,) = associations(BENEFITS | {"e": NAN}, {"level": values})
    assert found.formats == ("a", "b", "b2")


def test_every_property_asked_about_counts() -> None:
    other = dict(zip(BENEFITS, [3.0, 1.0, 1.0, 2.0, 5.0, 4.0], strict=True))
    constant = dict.fromkeys(BENEFITS, 8.0)
    found = associations(
        BENEFITS, {"level": LEVELS, "other": other, "bits": constant}, [("b", "b2")]
    )
    assert found[0].adjusted_p == pytest.approx(3 * 2 / 120)
    assert math.isnan(found[2].adjusted_p)


def test_one_collapsed_format_does_not_make_a_rank_correlation() -> None:
    found = correlate([7, 6, 5, 4, 3, 2, 1, 0], [0.01, 0.03, 0.00, 0.02, 0.015, 0.025, 0.005, -0.6])
    assert found.pearson > 0.5
    assert abs(found.spearman) < 0.5


@pytest.mark.parametrize("n", [5, 7])
def test_the_permutation_test_keeps_its_level(n: int) -> None:
    """Under independence P(p ≤ α) ≤ α for any distribution; here one with heavy tails."""
    generator = np.random.default_rng(72)
    x, draws = np.arange(n), 1500
    found = [correlate(x, row) for row in generator.standard_t(2, (draws, n))]
    for alpha in (0.05, 0.2):
        limit = stats.binom.interval(1 - 1e-4, draws, alpha)[1] / draws
        assert np.mean([f.pearson_p <= alpha for f in found]) <= limit
        assert np.mean([f.spearman_p <= alpha for f in found]) <= limit
