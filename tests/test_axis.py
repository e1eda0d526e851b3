"""The one text of a value on an axis, from the suite file to the report."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altgrad_core._axis import axis_text, meant
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import parse_suite

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("ab", min_size=1)
)


@given(SCALARS, SCALARS)
def test_two_values_have_one_text_only_if_they_are_the_same(a: object, b: object) -> None:
    if isinstance(a, str) or isinstance(b, str) or isinstance(a, bool) != isinstance(b, bool):
        return  # a text may look like anything
    assert (axis_text(a) == axis_text(b)) == (a == b)


def test_numbers_that_are_equal_are_written_alike() -> None:
    assert {axis_text(one) for one in (1, 1.0, np.float64(1), np.int64(1))} == {"1"}
    assert axis_text(np.bool_(True)) == axis_text(True) == "true"
    assert axis_text(1e-3) == "0.001"


def test_a_choice_is_its_name_and_its_settings_in_any_order_and_form() -> None:
    short = {"name": "exmy", "mantissa_bits": 2, "exponent_bits": 3}
    long = {"name": "exmy", "settings": {"exponent_bits": 3, "mantissa_bits": 2}}
    assert axis_text(short) == axis_text(long) == "exmy (exponent_bits=3, mantissa_bits=2)"


def test_a_list_too_long_to_read_is_its_number_and_a_digest() -> None:
    short = {"name": "table", "values": [0.0, 0.5, 1.0, -1.0]}
    assert axis_text(short) == "table (values=0+0.5+1+-1)"
    one, other = ({"name": "table", "values": [*range(255), last]} for last in (255, 256))
    assert re.fullmatch(r"table \(values=256 values [0-9a-f]{8}\)", axis_text(one))
    assert axis_text(one) != axis_text(other)


@pytest.mark.parametrize(
    ("text", "found"),
    [("1e-3", "0.001"), ("exmy", "exmy (bits=6)"), ("table", "table"), ("2", "2")],
)
def test_what_a_user_means(text: str, found: str) -> None:
    known = ["0.001", "exmy (bits=6)", "table (values=1)", "table (values=2)", "2"]
    assert meant(text, known) == found


SUITE = """
name: two_formats
data: {dataset: license_rules}
seeds: [0]
matrix:
  optimizer.type: [adamw, lion]
  quantization.format:
    - {name: exmy, mantissa_bits: 3, exponent_bits: 2}
    - {name: exmy, exponent_bits: 3, mantissa_bits: 2}
contrast:
  axis: quantization.format
  baseline: {name: exmy, exponent_bits: 2, mantissa_bits: 3}
  treatment: {name: exmy, mantissa_bits: 2, exponent_bits: 3, bias: null}
"""


def test_a_contrast_of_two_formats_of_one_plugin_is_planned() -> None:
    text = SUITE.replace(", bias: null}", "}")
    plan = plan_suite(parse_suite(text, "suite.yaml", Path()))
    contrast = plan.suite.contrast
    assert contrast is not None
    sides = {axis_text(cell.axes["quantization.format"]) for cell in plan.cells}
    assert sides == {contrast.baseline, contrast.treatment}
    assert contrast.baseline == "exmy (exponent_bits=2, mantissa_bits=3)"


ZIPPED = """
optimizer: {type: adamw}
name: zipped
data: {dataset: license_rules}
seeds: [0]
zip:
  training.batch_size: [8, 16]
  quantization.rounding: [nearest, stochastic]
contrast: {axis: quantization.rounding, baseline: nearest, treatment: stochastic}
"""


def test_the_axis_of_the_contrast_is_kept_where_another_follows_from_it() -> None:
    plan = plan_suite(parse_suite(ZIPPED, "suite.yaml", Path()))
    assert [list(cell.axes) for cell in plan.cells] == [["quantization.rounding"]] * 2
