"""Rounding and wording of numbers."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altgrad_core.analysis.words import (
    Spread,
    counted,
    group_names,
    listed,
    percent,
    score,
    significant,
    spread,
    with_spread,
)

NAN = math.nan


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9))
def test_spread_is_mean_and_sample_deviation(values: list[float]) -> None:
    found = spread([*values, NAN])
    assert found.n == len(values)
    assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-12)
    assert found.std == pytest.approx(statistics.stdev(values), abs=1e-9)


def test_one_value_has_no_deviation_and_none_has_no_mean() -> None:
    one, none = spread([0.5, NAN]), spread([NAN])
    assert (one.mean, one.n) == (0.5, 1)
    assert math.isnan(one.std)
    assert none.n == 0
    assert math.isnan(none.mean)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (1.0, "1.00"),
        (9.999, "10.0"),
        (99.96, "100"),
        (1234.4, "1234"),
        (123456.0, "123456"),
        (1234567.0, "1.23e6"),
        (0.00123, "0.00123"),
        (0.000123, "1.23e−4"),
        (-2.5, "−2.50"),
        (0.0, "0"),
        (NAN, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
    ],
)
def test_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("value", "plain", "signed"),
    [
        (0.5, "0.5000", "+0.5000"),
        (-0.01, "−0.0100", "−0.0100"),
        (0.00001, "0.0000", "0.0000"),
        (-0.00001, "0.0000", "0.0000"),
        (NAN, "–", "–"),
    ],
)
def test_scores_have_four_decimals_and_no_negative_zero(
    value: float, plain: str, signed: str
) -> None:
    assert score(value) == plain
    assert score(value, signed=True) == signed


def test_words_around_numbers() -> None:
    assert with_spread(Spread(0.5, 0.01, 3)) == "0.5000 ± 0.0100"
    assert with_spread(Spread(0.5, NAN, 1)) == "0.5000"
    assert percent(0.9157) == "91.6"
    assert (counted(1, "run"), counted(2, "run")) == ("1 run", "2 runs")
    assert [listed(x) for x in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


def test_a_placebo_is_no_further_setting_of_its_format() -> None:
    rows = [{"group": f"{name}, grid", "format": name, "placebo": ""} for name in "abcdefgh"]
    shuffled = {"group": "a, permuted", "format": "a", "placebo": "permuted"}
    found = group_names(rows, [*rows, shuffled])
    assert found.startswith("“a, grid”, “b, grid”")
    two = [{"group": f"{name}, other", "format": name, "placebo": ""} for name in "ab"]
    found = group_names(rows, [*rows, *two, shuffled])
    assert found == "a (1 of 2 settings), b (1 of 2 settings), c, d, e, f, g and h"
