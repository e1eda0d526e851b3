"""Scales against rational arithmetic, and the delayed history against a plain deque."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.modules.fake_quant import round_to_grid
from altgrad_core.quantization.scaling import (
    Scaler,
    largest_magnitude,
    power_of_two_at_least,
    scale_for,
)
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

LADDER = ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"]
FORMATS = {name: load_format(name) for name in LADDER}
amaxes = st.floats(2.0**-149, 2.0**126, width=32)


def scale(amax: float, fmt: Format, *, power_of_two: bool = True) -> float:
    return float(scale_for(torch.tensor(amax), fmt, power_of_two=power_of_two))


@pytest.mark.parametrize("name", LADDER)
@settings(max_examples=40)
@given(amax=amaxes)
@example(amax=1.0)
@example(amax=448.0)
@example(amax=math.nextafter(448.0, 500))
@example(amax=2.0**-126)
@example(amax=2.0**-149)
def test_the_power_of_two_is_the_smallest_that_avoids_overflow(name: str, amax: float) -> None:
    fmt = FORMATS[name]
    amax = float(torch.tensor(amax))
    found = Fraction(scale(amax, fmt))
    assert math.frexp(float(found))[0] == 0.5
    assert found >= Fraction(2) ** -126
    target = max(Fraction(amax), Fraction(2) ** -126)  # less is subnormal, and counts as this
    assert target <= found * Fraction(fmt.max_finite)
    smaller = found / 2
    assert smaller < Fraction(2) ** -126 or target > smaller * Fraction(fmt.max_finite)


@settings(max_examples=40)
@given(amax=st.floats(2.0**-60, 2.0**60, width=32))
@pytest.mark.parametrize("name", ["e0m7", "e3m4", "e5m2"])
def test_the_exact_scale_is_the_correctly_rounded_quotient(name: str, amax: float) -> None:
    fmt = FORMATS[name]
    quotient = Fraction(amax) / Fraction(fmt.max_finite)
    # Python's float of a Fraction is correctly rounded. Rounding it to float32 is a second rounding,
    # which near a tie may differ by an ulp.
    expected = float(torch.tensor(float(quotient)))
    assert scale(amax, fmt, power_of_two=False) == pytest.approx(expected, rel=2.0**-24)


@pytest.mark.parametrize("power_of_two", [True, False])
def test_zero_nan_and_inf(power_of_two: bool) -> None:
    fmt = FORMATS["e5m2"]
    assert scale(0.0, fmt, power_of_two=power_of_two) == 1.0
    assert scale(math.inf, fmt, power_of_two=power_of_two) == math.inf
    assert math.isnan(scale(math.nan, fmt, power_of_two=power_of_two))
    assert scale(2.0**-149, FORMATS["e7m0"], power_of_two=power_of_two) == 2.0**-126


@pytest.mark.parametrize("power_of_two", [True, False])
@given(amax=st.floats(2.0**-100, 2.0**100, width=32))
def test_the_two_uniform_grids_differ_by_a_factor_of_four(power_of_two: bool, amax: float) -> None:
    wide = scale(amax, FORMATS["e0m7"], power_of_two=power_of_two)
    assert wide == 4 * scale(amax, FORMATS["e1m6"], power_of_two=power_of_two)


def test_largest_magnitude() -> None:
    assert largest_magnitude(torch.tensor([[1.0, -3.0], [2.0, 0.0]])) == 3
    assert largest_magnitude(torch.zeros(0, 4)) == 0
    assert largest_magnitude(torch.tensor([1.0, math.nan])).isnan()
    assert largest_magnitude(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32


def test_formats_that_are_not_scaled_have_scale_one_and_no_history() -> None:
    module = nn.Linear(2, 2)
    scaler = Scaler(load_format("bf16"), ScalingSettings(mode="delayed"), "it")
    scaler.attach(module, torch.zeros(()))
    assert scaler.scale(module, 1e6 * module.weight) == 1
    assert not dict(module.named_buffers())


def test_delayed_takes_the_largest_of_the_last_steps() -> None:
    fmt = FORMATS["e3m4"]
    module = nn.Module()
    scaler = Scaler(fmt, ScalingSettings(mode="delayed", history=3, power_of_two=False), "it")
    scaler.attach(module, torch.zeros(()))
    past: deque[float] = deque(maxlen=3)
    for amax in [2.0, 5.0, 1.0, 0.5, 0.25, 7.0, 0.125]:
        found = float(scaler.scale(module, torch.tensor([amax, -amax / 2]), record=True))
        assert found == pytest.approx(max(past, default=amax) / fmt.max_finite)
        past.append(amax)
        assert module.get_buffer("it_amax_history").tolist() == [*reversed(past)] + [0] * (
            3 - len(past)
        )


def test_looking_leaves_the_history_alone_and_micro_batches_share_a_step() -> None:
    module = nn.Module()
    scaler = Scaler(FORMATS["e3m4"], ScalingSettings(mode="delayed", history=3), "it")
    scaler.attach(module, torch.zeros(()))
    scaler.scale(module, torch.tensor([9.0]))
    assert module.get_buffer("it_amax_history").tolist() == [0, 0, 0]
    scaler.scale(module, torch.tensor([2.0]), record=True)
    scaler.scale(module, torch.tensor([5.0]), record=True, same_step=True)
    scaler.scale(module, torch.tensor([3.0]), record=True, same_step=True)
    assert module.get_buffer("it_amax_history").tolist() == [5, 0, 0]
    assert set(module.state_dict()) == {"it_amax_history"}
    scaler.detach(module)
    assert not module.state_dict()


@pytest.mark.parametrize("name", ["e0m7", "e3m4", "e4m3", "e6m1", "e7m0"])
@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("headroom", [1.0, 4.0])
@pytest.mark.parametrize("amax", [1e38, 2.0**127, 3e38, torch.finfo(torch.float32).max])
def test_the_largest_tensors_saturate_at_what_float32_holds(
    name: str, power_of_two: bool, headroom: float, amax: float
) -> None:
    fmt, x = FORMATS[name], torch.tensor([amax, -amax, amax / 3])
    settings = ScalingSettings(power_of_two=power_of_two, headroom=headroom)
    scale = Scaler(fmt, settings, "it").scale(nn.Module(), x)
    assert math.isfinite(float(scale) * fmt.max_finite)
    rounded = round_to_grid(x, fmt, scale, torch.float32, scaling=settings).values
    assert bool(rounded.isfinite().all())
    assert bool(((rounded - x).abs() <= 0.51 * x.abs()).all())
    if power_of_two and float(scale) * fmt.max_finite < amax:  # then the next would overflow
        assert not bool((2 * scale * fmt.max_finite).isfinite())


@pytest.mark.parametrize("mode", ["current", "delayed", "frozen"])
@pytest.mark.parametrize("name", ["e4m3", "e5m2", "bf16", "fp32"])
@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_comes_out_not_finite(mode: Any, name: str, broken: float) -> None:
    fmt = load_format(name)
    layer = nn.Linear(2, 2, bias=False)
    quantize_model(layer, fmt, activation_format=fmt, scaling=ScalingSettings(mode=mode))
    for _ in range(2):
        layer(torch.ones(1, 2))
    assert not bool(layer(torch.tensor([[1.0, broken]])).isfinite().any())
    assert bool(layer(torch.ones(1, 2)).isfinite().all())  # and does no harm to what follows
    with torch.no_grad():
        layer.weight[0, 0] = broken
    assert not bool(layer(torch.ones(1, 2))[0, 0].isfinite())


def test_a_broken_resident_weight_shows() -> None:
    layer = nn.Linear(2, 2, bias=False)
    quantize_model(layer, FORMATS["e4m3"], residency="grid")
    with torch.no_grad():
        layer.weight[0, 0] = math.inf
    assert layer(torch.ones(1, 2))[0].isfinite().tolist() == [False, True]


@pytest.mark.parametrize("largest", [2.0**-149, 1e-40, 2.0**-126, 0.75, 31.0, 2.0**64, 2.0**127])
def test_the_power_of_two_against_fractions(largest: float) -> None:
    largest = float(torch.tensor(largest))
    draws = torch.Generator().manual_seed(0)
    bits = torch.randint(1, 0x7F800000, (500,), generator=draws, dtype=torch.int32)
    amax = torch.cat([bits.view(torch.float32), largest * 2.0 ** torch.arange(-9, 9)])
    amax = amax[amax.isfinite()]
    found = power_of_two_at_least(amax, largest).tolist()
    highest = max(k for k in range(128) if 2**k * Fraction(largest) < 2**128)
    ends = [Fraction(2) ** k * Fraction(largest) for k in range(-126, 278)]
    for value, power in zip(amax.tolist(), found, strict=True):
        k = bisect_left(ends, max(value, 2.0**-126)) - 126
        assert power == 2.0 ** min(k, highest)
