"""Properties of formats, against values from elsewhere."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from scipy import stats

from altgrad_core import load_format
from altgrad_core.analysis.formats import COLUMNS
from altgrad_core.quantization.format_numbers import normal_sqnr, numbers_of


def numbers(name: str, **settings: Any) -> SimpleNamespace:
    found = numbers_of(load_format(name, **settings))
    assert tuple(found) == COLUMNS
    return SimpleNamespace(**found)


def test_one_grid_under_several_names_is_known_as_one() -> None:
    assert numbers("e0m7").grid == numbers("e1m6").grid != ""
    wide = {"exponent_bits": 3, "mantissa_bits": 2}
    assert numbers("exmy", **wide).grid == numbers("exmy", **wide, bias=1).grid
    grids = {numbers(name).grid for name in ("e0m7", "e3m4", "e4m3", "e5m2", "bf16")}
    assert len(grids) == 5
    assert numbers("fp32").grid == ""


@pytest.mark.parametrize(
    ("name", "bits", "exponent", "mantissa", "largest", "smallest", "uniform"),
    [
        ("e0m7", 8, 0, 7, 127 / 128, 1 / 128, True),
        ("e1m6", 8, 1, 6, 3.96875, 1 / 32, True),
        ("e3m4", 8, 3, 4, 31, 1 / 64, False),
        ("e5m2", 8, 5, 2, 57344, 2**-16, False),
        ("e7m0", 8, 7, 0, 2**64, 2**-62, False),
    ],
)
def test_the_ladder(
    name: str,
    bits: int,
    exponent: int,
    mantissa: int,
    largest: float,
    smallest: float,
    uniform: bool,
) -> None:
    found = numbers(name)
    assert (found.bits, found.exponent_bits, found.mantissa_bits) == (bits, exponent, mantissa)
    assert found.binades == pytest.approx(math.log2(largest / smallest))
    assert found.uniform is uniform
    assert found.scaled


def test_references_are_not_scaled() -> None:
    assert not numbers("bf16").scaled
    assert numbers("fp32").uniform is None


def test_noise_of_a_normal_tensor_by_other_means() -> None:
    """Quantiles from scipy, rounding from ml_dtypes."""
    n = 2**16
    x = stats.norm.ppf((np.arange(n) + 0.5) / n)
    scale = x.max() / 57344
    rounded = (x / scale).astype(np.float32).astype(ml_dtypes.float8_e5m2).astype(np.float64)
    expected = 10 * np.log10((x**2).sum() / ((x - scale * rounded) ** 2).sum())
    assert normal_sqnr(load_format("e5m2")) == pytest.approx(expected, abs=0.01)


def test_noise_of_a_uniform_grid_follows_the_textbook() -> None:
    """Gap²/12 of noise, with the gap that 127 steps make of the largest of 2^16 normal values."""
    largest = float(stats.norm.ppf((2**16 - 0.5) / 2**16))
    expected = 10 * math.log10(12 * (127 / largest) ** 2)
    assert normal_sqnr(load_format("e0m7")) == pytest.approx(expected, abs=0.05)
    assert normal_sqnr(load_format("e1m6")) == normal_sqnr(load_format("e0m7"))


def test_a_reference_is_measured_at_scale_one() -> None:
    assert normal_sqnr(load_format("fp32")) > 140
    n = 2**16
    x = stats.norm.ppf((np.arange(n) + 0.5) / n)
    rounded = x.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)
    expected = 10 * np.log10((x**2).sum() / ((x - rounded) ** 2).sum())
    assert normal_sqnr(load_format("bf16")) == pytest.approx(expected, abs=1e-4)
