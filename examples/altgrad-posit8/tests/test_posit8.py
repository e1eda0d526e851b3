from __future__ import annotations

import copy
import pickle

import pytest
import torch
from altgrad_posit8.posit8 import Posit8, PositTable, posit

from altgrad_core import load_format
from altgrad_core.quantization.scaling import Scaler
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.testing.formats import check_format

each_es = pytest.mark.parametrize("es", [0, 1, 2])


def test_the_contract() -> None:
    check_format(Posit8())


def test_it_is_found_by_name_and_takes_its_setting() -> None:
    assert isinstance(load_format("posit8"), Posit8)
    assert load_format("posit8", es=2).max_finite == 2.0**24


@pytest.mark.parametrize(
    ("code", "es", "value"),
    [
        (0b01000000, 1, 1.0),
        (0b00000001, 1, 2.0**-12),
        (0b01111111, 1, 2.0**12),
        (0b01111110, 1, 2.0**10),  # the exponent bit is cut off and counts as 0
        (0b00110100, 1, 0.625),
        (0b11000000, 1, -1.0),
        (0b01100000, 0, 2.0),
        (0b01111111, 0, 64.0),
        (0b01111111, 2, 2.0**24),
        (0b01001101, 2, 3.25),
    ],
)
def test_values_by_hand(code: int, es: int, value: float) -> None:
    assert posit(code, 8, es) == value


@each_es
def test_rounding_is_that_of_the_standard(es: int) -> None:
    """In bit patterns: the posit with one bit more lies between, and a tie goes to the even code."""
    fmt, codes = Posit8("posit8", es), range(1, 127)
    for code in codes:
        low, high = posit(code, 8, es), posit(code + 1, 8, es)
        middle = torch.tensor(posit(2 * code + 1, 9, es))
        assert low < middle < high
        tie = low if code % 2 == 0 else high
        x = torch.stack(
            [
                torch.nextafter(middle, torch.tensor(0.0)),
                middle,
                torch.nextafter(middle, 2 * middle),
            ]
        )
        for sign in (1, -1):
            assert (sign * fmt.round(sign * x)).tolist() == [low, tie, high]
    ends = torch.tensor([1e-45, -1e-45, 1e-30, 0.0, 3e38, -torch.inf])
    least, most = fmt.min_positive, fmt.max_finite
    assert fmt.round(ends).tolist() == [least, -least, least, 0.0, most, -most]
    assert fmt.encode(torch.tensor([torch.nan, -1.0, 1e-9])).tolist() == [128, 0b11000000, 1]


def test_where_exponent_bits_are_cut_off_the_threshold_is_the_geometric_mean() -> None:
    fmt = Posit8()
    assert fmt.round(torch.tensor([2.0**11, 2.0**11 + 1, 2560.0])).tolist() == [
        1024.0,
        4096.0,
        4096.0,
    ]


@each_es
def test_the_faster_methods_equal_the_table(es: int) -> None:
    """At all codes, thresholds and midpoints with the floats beside them, all bfloat16, and others."""
    fast, derived = Posit8("posit8", es), PositTable("posit8", es)
    values = derived.code_values()
    values = values[values.isfinite()].sort().values
    points = torch.cat([values, derived.thresholds().float(), values[1:] / 2 + values[:-1] / 2])
    up, down = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16).float()
    drawn = torch.randint(-(2**31), 2**31, (20_000,), generator=torch.Generator().manual_seed(0))
    x = torch.cat(
        [
            points,
            torch.nextafter(points, up),
            torch.nextafter(points, down),
            every,
            drawn.int().view(torch.float32),
        ]
    )
    for method in ("round", "ulp", "to_rung", "encode"):
        for given in (x, x.double(), x.bfloat16()):
            got, want = getattr(fast, method)(given), getattr(derived, method)(given)
            assert got.dtype == want.dtype
            assert torch.equal(got.nan_to_num(-7), want.nan_to_num(-7)), method
            if got.is_floating_point():
                assert torch.equal(got.signbit() & ~got.isnan(), want.signbit() & ~want.isnan())


def test_copies_are_small_and_alike() -> None:
    fmt = Posit8("posit8", 2)
    x = torch.linspace(-9, 9, 101)
    fmt.round(x)
    assert len(pickle.dumps(fmt)) < 500
    assert torch.equal(copy.deepcopy(fmt).round(x), fmt.round(x))


def relative_error(headroom: float | None, *, power_of_two: bool = False) -> float:
    """Of a million normal weights under the scale that training would use."""
    weights = 0.02 * torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    settings = ScalingSettings(headroom=headroom, power_of_two=power_of_two)
    scale = Scaler(Posit8(), settings, "weight").fresh(weights.abs().max())
    return float((Posit8().round(weights / scale) * scale - weights).norm() / weights.norm())


def test_amax_goes_where_posits_are_precise() -> None:
    assert Posit8().headroom == 1024
    assert [Posit8("posit8", es).headroom for es in (0, 2)] == [32, 2**20]
    assert relative_error(1) > 0.31
    assert relative_error(None) == relative_error(1024) == pytest.approx(0.013, abs=0.0005)
    # powers of two, as by default: the scale is rounded up, so amax lies somewhat below
    assert relative_error(1, power_of_two=True) > 0.25
    assert relative_error(None, power_of_two=True) < 0.014
