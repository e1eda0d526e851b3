"""Where a tensor belongs on a grid: at the top of floats, well below the end of tapered grids."""

from __future__ import annotations

import math

import pytest
import torch

from altgrad_core import load_format
from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.placement import normal_sample, sqnr
from altgrad_core.quantization.scaling import Scaler
from altgrad_core.quantization.settings import ScalingSettings

LADDER = ("e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0")


def posit8(es: int) -> Format:
    """The posit of 8 bits, from its definition: sign, regime, exponent, fraction."""

    def value(code: int) -> float:
        if code in (0, 128):
            return 0.0 if code == 0 else math.nan
        size = code if code < 128 else 256 - code
        digits = [int(d) for d in f"{size:07b}"]
        run = next((i for i, d in enumerate(digits) if d != digits[0]), 7)
        regime = run - 1 if digits[0] else -run
        rest = digits[run + 1 :]
        exponent = sum(d << (es - 1 - i) for i, d in enumerate(rest[:es]))
        fraction = 1 + sum(d / 2 ** (i + 1) for i, d in enumerate(rest[es:]))
        magnitude = fraction * 2.0 ** (regime * 2**es + exponent)
        return magnitude if code < 128 else -magnitude

    return load_format("table", values=[value(code) for code in range(256)])


@pytest.mark.parametrize("name", [*LADDER, "bf16", "fp32"])
def test_floats_are_used_up_to_their_largest_value(name: str) -> None:
    assert load_format(name).headroom == 1


@pytest.mark.parametrize(("es", "headroom", "db"), [(0, 32, 39), (1, 1024, 37), (2, 2**20, 31)])
def test_posits_have_their_precision_in_the_middle(es: int, headroom: float, db: float) -> None:
    fmt = posit8(es)
    assert fmt.headroom == headroom
    at_the_top, placed = sqnr(fmt.round, fmt.max_finite, torch.tensor([1.0, headroom])).tolist()
    assert placed > db > 18 > at_the_top


@pytest.mark.parametrize("fmt", [posit8(1), load_format("e3m4"), load_format("e0m7")])
def test_the_ratio_is_that_of_the_rounding_itself(fmt: Format) -> None:
    sample = normal_sample().float()
    for headroom in (1.0, 4.0, 64.0):
        settings = ScalingSettings(headroom=headroom, power_of_two=False)
        scale = Scaler(fmt, settings, "x").fresh(sample.abs().amax())
        noise = (fmt.round(sample / scale) * scale - sample).double()
        expected = 10 * math.log10(sample.double().square().sum() / noise.square().sum())
        assert float(sqnr(fmt.round, fmt.max_finite, torch.tensor([headroom]))) == pytest.approx(
            expected, abs=0.05
        )


def test_the_default_is_the_formats_own_and_can_be_set() -> None:
    fmt, amax = posit8(1), torch.tensor(3.0)
    assert float(Scaler(fmt, ScalingSettings(), "x").fresh(amax)) == 1.0  # 3 · 1024 ≤ 4096
    assert float(Scaler(fmt, ScalingSettings(headroom=1), "x").fresh(amax)) == 2.0**-10
    assert str(Scaler(fmt, ScalingSettings(), "x")) == "current, headroom 1024"


@pytest.mark.parametrize("name", [*LADDER, "bf16"])
def test_halving_the_scale_of_a_float_moves_nothing(name: str) -> None:
    assert load_format(name).closed_under_doubling


def test_nor_of_a_posit_but_for_its_ends() -> None:
    assert not posit8(1).closed_under_doubling
