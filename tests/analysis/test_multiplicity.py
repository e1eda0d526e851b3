"""Holm over distinct formats: worked by hand, against statsmodels, and its family-wise error."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from altgrad_core.analysis.multiplicity import equal_classes, holm, holm_over_distinct

NAN = math.nan
probability = st.floats(0, 1)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.02]) == (0.02,)
    assert holm([]) == ()
    assert holm([0.5, 0.9]) == (1.0, 1.0)


@given(st.lists(probability, min_size=1, max_size=9))
@settings(max_examples=15, deadline=None)  # statsmodels takes 30 ms
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


@given(st.lists(probability, min_size=1, max_size=7), st.randoms())
def test_holm_does_not_depend_on_the_order(p_values: list[float], random: Random) -> None:
    order = sorted(range(len(p_values)), key=lambda _: random.random())
    shuffled = holm([p_values[i] for i in order])
    assert shuffled == pytest.approx([holm(p_values)[i] for i in order])


def test_what_could_not_be_tested_still_counts() -> None:
    found = holm([0.01, NAN, NAN])
    assert found[0] == pytest.approx(0.03)
    assert all(math.isnan(p) for p in found[1:])
    assert all(math.isnan(p) for p in holm([NAN, NAN]))


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.inf])
def test_a_p_value_is_a_probability(bad: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, bad])


def test_classes_are_closed_and_keep_the_order() -> None:
    assert equal_classes("abcd", []) == (("a",), ("b",), ("c",), ("d",))
    assert equal_classes("abcd", [("d", "a")]) == (("a", "d"), ("b",), ("c",))
    assert equal_classes("abcd", [("a", "b"), ("c", "d"), ("b", "d")]) == (("a", "b", "c", "d"),)
    assert equal_classes("abcd", [("a", "a"), ("b", "a"), ("a", "b")]) == (
        ("a", "b"),
        ("c",),
        ("d",),
    )
    assert equal_classes(["a", "a"], []) == (("a",),)


def test_equality_passes_through_a_format_that_was_not_run() -> None:
    assert equal_classes("ab", [("x", "y")]) == (("a",), ("b",))
    assert equal_classes("ab", [("a", "x"), ("x", "b")]) == (("a", "b"),)
    assert equal_classes("ab", [("x", "a"), ("b", "x")]) == (("a", "b"),)


def test_equal_formats_are_one_hypothesis() -> None:
    p = {"a": 0.01, "b": 0.01, "c": 0.02}
    assert holm_over_distinct(p) == pytest.approx({"a": 0.03, "b": 0.03, "c": 0.03})
    once = holm_over_distinct(p, [("a", "b")])
    assert once == pytest.approx({"a": 0.02, "b": 0.02, "c": 0.02})


def test_the_cautious_one_decides_where_equals_differ() -> None:
    found = holm_over_distinct({"a": 0.001, "b": 0.4, "c": 0.02}, [("a", "b")])
    assert found == pytest.approx({"a": 0.4, "b": 0.4, "c": 0.04})


def test_an_untested_member_has_no_p_and_does_not_hide_the_other() -> None:
    found = holm_over_distinct({"a": NAN, "b": 0.01, "c": NAN}, [("a", "b")])
    assert math.isnan(found["a"])
    assert found["b"] == pytest.approx(0.02)
    assert math.isnan(found["c"])


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_the_family_wise_error_under_the_global_null(shared: float) -> None:
    """Five formats, two of them equal, no effect in any; with and without noise that all share."""
    generator = np.random.default_rng(21)
    draws, n = 8000, 5
    noise = generator.normal(size=(draws, 4, n)) * math.sqrt(1 - shared)
    noise += generator.normal(size=(draws, 1, n)) * math.sqrt(shared)
    p = stats.ttest_1samp(noise, 0.0, axis=-1).pvalue
    found = [
        holm_over_distinct(dict(zip("abcde", [*row, row[0]], strict=True)), [("a", "e")])
        for row in p
    ]
    rate = np.mean([min(adjusted.values()) <= 0.05 for adjusted in found])
    assert rate <= stats.binom.interval(1 - 1e-4, draws, 0.05)[1] / draws
    if not shared:  # and no less than four independent hypotheses allow: the fifth costs nothing
        assert rate >= stats.binom.interval(1 - 1e-4, draws, 1 - (1 - 0.05 / 4) ** 4)[0] / draws
