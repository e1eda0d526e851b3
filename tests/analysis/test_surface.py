"""Collinearity and the plane over two properties: by hand, against statsmodels, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.outliers_influence import variance_inflation_factor

from altgrad_core.analysis.surface import (
    NotIdentified,
    coefficients_over_seeds,
    collinearity,
    least_squares,
)

EIGHT_BITS = {"mantissa": [7.0, 6, 5, 4, 3, 2, 1, 0], "exponent": [0.0, 1, 2, 3, 4, 5, 6, 7]}
# Formats of 6 to 10 bits: E and M from 1 to 6 each.
GRID = [(m, e) for bits in range(6, 11) for m in range(1, 7) if 1 <= (e := bits - 1 - m) <= 6]
WIDTHS = {
    "mantissa": [float(m) for m, _ in GRID],
    "binades": [2.0**e + m for m, e in GRID],
}


def test_at_one_width_mantissa_and_exponent_are_one_property() -> None:
    found = collinearity(EIGHT_BITS)
    (pair,) = found.pairs
    assert (pair.first, pair.second) == ("mantissa", "exponent")
    assert pair.r == pytest.approx(-1.0)
    assert found.condition_number == math.inf
    assert found.vif == {"mantissa": math.inf, "exponent": math.inf}
    assert not found.identified
    with pytest.raises(NotIdentified, match="mantissa, exponent apart"):
        least_squares([0.0] * 8, EIGHT_BITS)


def test_several_widths_separate_them() -> None:
    found = collinearity(WIDTHS)
    assert found.identified
    (pair,) = found.pairs
    r = stats.pearsonr(*WIDTHS.values()).statistic
    assert pair.r == pytest.approx(r)
    # With two columns both follow from r.
    assert found.vif["mantissa"] == pytest.approx(1 / (1 - r**2))
    assert found.condition_number == pytest.approx(math.sqrt((1 + abs(r)) / (1 - abs(r))))


def test_inflation_is_that_of_statsmodels() -> None:
    columns = dict(zip("abc", np.random.default_rng(81).normal(size=(3, 12)) + 5, strict=True))
    columns["c"] = columns["a"] + 0.1 * columns["c"]
    design = sm.add_constant(np.column_stack(list(columns.values())))
    found = collinearity({k: v.tolist() for k, v in columns.items()})
    for j, name in enumerate(columns, 1):
        assert found.vif[name] == pytest.approx(variance_inflation_factor(design, j))


def test_dependent_columns_do_not_blur_the_others() -> None:
    found = collinearity({"a": [1.0, 2, 3, 4, 5], "b": [2.0, 4, 6, 8, 10], "c": [1.0, 0, 2, 0, 1]})
    assert found.condition_number == math.inf
    assert found.vif["a"] == found.vif["b"] == math.inf
    assert found.vif["c"] == pytest.approx(1.0)


def test_a_constant_column_is_part_of_the_intercept() -> None:
    found = collinearity({"a": [1.0, 2, 3, 5], "bits": [8.0, 8, 8, 8]})
    assert math.isnan(found.pairs[0].r)
    assert found.vif["bits"] == math.inf
    assert found.vif["a"] == pytest.approx(1.0)
    assert not found.identified


def test_a_plane_is_found_again() -> None:
    response = [0.5 + 0.01 * m - 0.002 * b for m, b in zip(*WIDTHS.values(), strict=True)]
    fit = least_squares(response, WIDTHS)
    assert [term.name for term in fit.terms] == ["intercept", "mantissa", "binades"]
    assert fit["intercept"].value == pytest.approx(0.5)
    assert fit["mantissa"].value == pytest.approx(0.01)
    assert fit["binades"].value == pytest.approx(-0.002)
    assert fit.r_squared == pytest.approx(1.0)
    assert (fit.n, fit.dof) == (len(GRID), len(GRID) - 3)


def test_errors_are_those_of_statsmodels() -> None:
    generator = np.random.default_rng(82)
    response = generator.normal(0.02 * np.array(WIDTHS["mantissa"]), 0.02)
    fit = least_squares(response.tolist(), WIDTHS)
    design = sm.add_constant(np.column_stack(list(WIDTHS.values())))
    witness = sm.OLS(response, design).fit()
    assert [t.value for t in fit.terms] == pytest.approx(witness.params.tolist())
    assert [t.error for t in fit.terms] == pytest.approx(witness.bse.tolist())
    assert [t.p for t in fit.terms] == pytest.approx(witness.pvalues.tolist())
    assert fit.r_squared == pytest.approx(witness.rsquared)
    assert fit.residual_std == pytest.approx(math.sqrt(witness.mse_resid))
    # The partial correlation: of what the other column leaves of either.
    rest = sm.add_constant(np.array(WIDTHS["binades"]))
    left = [sm.OLS(y, rest).fit().resid for y in (response, np.array(WIDTHS["mantissa"]))]
    assert fit["mantissa"].partial_r == pytest.approx(np.corrcoef(*left)[0, 1])


def test_units_do_not_matter() -> None:
    response = np.random.default_rng(83).normal(size=len(GRID))
    scaled = WIDTHS | {"binades": [1e12 * b for b in WIDTHS["binades"]]}
    fit, other = least_squares(response.tolist(), WIDTHS), least_squares(response.tolist(), scaled)
    assert other["binades"].value * 1e12 == pytest.approx(fit["binades"].value)
    assert other["mantissa"].error == pytest.approx(fit["mantissa"].error)


def test_as_many_terms_as_formats_leave_no_error() -> None:
    columns = {"a": [0.0, 1, 0], "b": [0.0, 0, 1]}
    fit = least_squares([1.0, 2.0, 4.0], columns)
    assert [t.value for t in fit.terms] == pytest.approx([1.0, 1.0, 3.0])
    assert fit.dof == 0
    assert all(math.isnan(t.error) and math.isnan(t.p) for t in fit.terms)
    with pytest.raises(NotIdentified):
        least_squares([1.0, 2.0], {"a": [0.0, 1], "b": [1.0, 0]})


def test_what_does_not_fit_together() -> None:
    for call in (
        lambda: collinearity({}),
        lambda: collinearity({"a": [1.0], "b": [1.0, 2.0]}),
        lambda: collinearity({"a": [1.0, math.nan, 2.0]}),
        lambda: least_squares([1.0, 2.0], {"a": [1.0, 2.0, 3.0]}),
        lambda: least_squares([1.0, math.nan, 3.0, 2.0], {"a": [1.0, 2.0, 3.0, 5.0]}),
        lambda: coefficients_over_seeds([], {"a": [1.0, 2.0, 3.0]}),
        lambda: coefficients_over_seeds([[1.0, 2, 3], [1.0, 2]], {"a": [1.0, 2.0, 3.0]}),
    ):
        with pytest.raises(ValueError):
            call()


def test_intervals_of_the_fit_cover() -> None:
    generator = np.random.default_rng(84)
    true, draws = 0.01, 1000
    responses = generator.normal(true * np.array(WIDTHS["mantissa"]), 0.02, (draws, len(GRID)))
    half = stats.t.ppf(0.975, len(GRID) - 3)
    terms = [least_squares(row.tolist(), WIDTHS)["mantissa"] for row in responses]
    hits = sum(abs(t.value - true) <= half * t.error for t in terms)
    low, high = stats.binom.interval(1 - 1e-4, draws, 0.95)
    assert low <= hits <= high


def test_slopes_over_seeds_are_those_of_each_seed_and_cover() -> None:
    """Formats off the plane do not widen them: the same formats would be off it with new seeds."""
    generator = np.random.default_rng(85)
    bend = generator.normal(size=len(GRID))
    design = sm.add_constant(np.column_stack(list(WIDTHS.values())))
    expected = float((np.linalg.pinv(design) @ bend)[1])
    hits, draws = 0, 1000
    for _ in range(draws):
        rows = bend + generator.normal(0.0, 0.05, (5, len(GRID)))
        found = coefficients_over_seeds(rows.tolist(), WIDTHS)["mantissa"]
        hits += found.low <= expected <= found.high
    low, high = stats.binom.interval(1 - 1e-4, draws, 0.95)
    assert low <= hits <= high
    slopes = [least_squares(row, WIDTHS)["mantissa"].value for row in rows.tolist()]
    assert found.mean == pytest.approx(np.mean(slopes))
    assert found.std == pytest.approx(np.std(slopes, ddof=1))
