"""The rounding kernel against its definition, for any numbers a format may have."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from altgrad_core.quantization.kernels.rounding import (
    GridNumbers,
    round_nearest,
    round_stochastic,
    rungs,
    spacing,
    values,
)

INF, NAN = float("inf"), float("nan")
E4M3 = GridNumbers(3, -6, 448.0)
E5M2 = GridNumbers(2, -14, 57344.0)


def floor_log2(x: Fraction) -> int:
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= x else exponent - 1


def step(x: Fraction, numbers: GridNumbers) -> Fraction:
    exponent = max(floor_log2(x), numbers.min_exponent) if x else numbers.min_exponent
    return Fraction(2) ** (exponent - numbers.mantissa_bits)


def definition(x: float, numbers: GridNumbers) -> tuple[float, int]:
    """Value and rung of the nearest grid value, by the words of the module, in rationals."""
    size = min(abs(Fraction(x)), Fraction(numbers.max_value))
    unit = step(size, numbers)
    multiple, rest = divmod(size, unit)
    binade = max(floor_log2(size), numbers.min_exponent) if size else numbers.min_exponent
    rung = int(multiple) + ((binade - numbers.min_exponent) << numbers.mantissa_bits)
    if 2 * rest > unit or (2 * rest == unit and rung % 2 == 1):
        rung, size = rung + 1, (multiple + 1) * unit
    else:
        size = multiple * unit
    return math.copysign(float(size), x), rung if x > 0 else -rung


@st.composite
def grids(draw: st.DrawFn) -> GridNumbers:
    m = draw(st.integers(0, 12))
    e_min = draw(st.integers(-140 + m, 60))
    binade = draw(st.integers(0, 40))
    # in the lowest binade the largest value may be a subnormal, as it is without an exponent
    multiple = draw(st.integers(1 if binade == 0 else 2**m, 2 ** (m + 1) - 1))
    size = Fraction(multiple) * Fraction(2) ** (e_min + binade - m)
    return GridNumbers(m, e_min, float(size))


@settings(max_examples=200, deadline=None)
@given(numbers=grids(), data=st.data(), double=st.booleans())
def test_nearest_is_the_definition(numbers: GridNumbers, data: st.DataObject, double: bool) -> None:
    width = 64 if double else 32
    dtype = torch.float64 if double else torch.float32
    lowest = numbers.min_exponent - numbers.mantissa_bits - 3
    highest = math.frexp(numbers.max_value)[1] + 1
    exact = st.builds(
        lambda k, e, s: float(torch.tensor(s * math.ldexp(k, e), dtype=dtype)),
        st.integers(0, 2 ** (numbers.mantissa_bits + 2)),  # grid values and midpoints
        st.integers(lowest, max(lowest, highest - numbers.mantissa_bits)),
        st.sampled_from([1, -1]),
    )
    floats = st.floats(allow_nan=False, allow_infinity=False, width=width)
    x = data.draw(st.lists(st.one_of(exact, floats), min_size=1, max_size=20))
    given_x = torch.tensor(x, dtype=dtype)
    want = [definition(v, numbers) for v in x]
    got = round_nearest(given_x, numbers)
    assert got.tolist() == [value for value, _ in want]
    assert got.signbit().tolist() == given_x.signbit().tolist()
    numbered = rungs(given_x, numbers)
    assert numbered.dtype == torch.int32
    assert numbered.tolist() == [rung for _, rung in want]
    assert values(numbered, numbers).tolist() == got.tolist()
    inside = [min(abs(Fraction(v)), Fraction(numbers.max_value)) for v in x]
    assert spacing(given_x, numbers).tolist() == [float(step(v, numbers)) for v in inside]


def test_facts_by_hand() -> None:
    x = torch.tensor([0.0, 1.0, 1.0625, 1.1875, 2**-10, 3 * 2**-10, 447.0, 1e9, -0.3])
    want = [0.0, 1.0, 1.0, 1.25, 0.0, 2**-8, 448.0, 448.0, -0.3125]
    assert round_nearest(x, E4M3).tolist() == want
    assert rungs(x, E4M3).tolist() == [0, 56, 56, 58, 0, 2, 126, 126, -42]
    assert spacing(torch.tensor([0.0, 2**-6, 2**-5, 1.0, 300.0, INF]), E4M3).tolist() == [
        2**-9,
        2**-9,
        2**-8,
        0.125,
        32.0,
        32.0,
    ]


def test_adding_a_half_and_flooring_would_fail_here() -> None:
    # 0.49999997 + 0.5 is 1 in float32, so floor(x + 0.5) gives 1
    x = torch.tensor([0.49999997, -0.49999997])
    assert round_nearest(x, GridNumbers(7, 7, 255.0)).tolist() == [0.0, 0.0]


def test_a_logarithm_would_fail_here() -> None:
    # the float32 below 2^k has a float32 log2 of k
    below = torch.nextafter(torch.tensor(2.0**13), torch.tensor(0.0))
    assert below.log2() == 13
    assert spacing(below, E5M2) == 2.0**10
    assert spacing(torch.tensor(2.0**13), E5M2) == 2.0**11


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_mantissa_bits_ties_go_to_the_even_exponent_field(dtype: torch.dtype) -> None:
    for e_min in (-62, -61):
        numbers = GridNumbers(0, e_min, 2.0**20)
        for e in range(e_min, 20):
            lower = torch.tensor(2.0**e, dtype=dtype)
            tie = lower * 1.5
            up = torch.nextafter(tie, 2 * tie)
            field_is_even = (e - e_min + 1) % 2 == 0
            assert round_nearest(tie, numbers) == (lower if field_is_even else 2 * lower)
            assert round_nearest(up, numbers) == 2 * lower
            assert round_nearest(torch.nextafter(tie, lower), numbers) == lower
            assert round_nearest(torch.nextafter(lower, lower / 2), numbers) == lower
        half = torch.tensor(2.0 ** (e_min - 1), dtype=dtype)
        assert round_nearest(half, numbers) == 0
        assert round_nearest(torch.nextafter(half, 2 * half), numbers) == 2.0**e_min


def test_steps_that_float32_cannot_express() -> None:
    bf16 = GridNumbers(7, -126, (2 - 2**-7) * 2.0**127)
    x = torch.tensor([2**-133, 1.5 * 2**-133, 2.5 * 2**-133, 2**-134, 2**-149, -(2**-126)])
    want = x.to(torch.bfloat16).float()
    got = round_nearest(x, bf16)
    assert got.dtype == torch.float32
    assert got.tolist() == want.tolist()
    assert spacing(x, bf16).tolist() == [2**-133] * 6
    assert rungs(x, bf16).tolist() == [1, 2, 2, 0, 0, -128]
    assert values(torch.tensor([1, 2, -128]), bf16).tolist() == [2**-133, 2**-132, -(2**-126)]


@pytest.mark.parametrize("min_exponent", range(-130, -120))
@pytest.mark.parametrize("mantissa_bits", [0, 1, 3])
def test_around_the_smallest_normal_float32(min_exponent: int, mantissa_bits: int) -> None:
    numbers = GridNumbers(mantissa_bits, min_exponent, 1.0)
    halves = torch.arange(8 << mantissa_bits) * 2.0 ** (min_exponent - mantissa_bits - 1)
    want = [definition(v, numbers) for v in halves.tolist()]
    assert round_nearest(halves, numbers).tolist() == [value for value, _ in want]
    assert rungs(halves, numbers).tolist() == [rung for _, rung in want]
    assert spacing(halves, numbers).tolist() == [
        float(step(Fraction(v), numbers)) for v in halves.tolist()
    ]


@pytest.mark.parametrize(("overflow", "special"), [(NAN, NAN), (INF, INF), (None, 448.0)])
def test_overflow(overflow: float | None, special: float) -> None:
    numbers = GridNumbers(3, -6, 448.0, overflow)
    x = torch.tensor([464.0, 465.0, 3.4e38, INF, -465.0, -INF, 448.0, -0.0, NAN])
    for dtype in (torch.float32, torch.float64):
        got = round_nearest(x.to(dtype), numbers)
        torch.testing.assert_close(
            got,
            torch.tensor(
                [448.0, special, special, special, -special, -special, 448.0, -0.0, NAN],
                dtype=dtype,
            ),
            rtol=0,
            atol=0,
            equal_nan=True,
        )
        assert got[7].signbit()
    assert rungs(x, numbers).tolist() == [126, 126, 126, 126, -126, -126, 126, 0, 0]
    drawn = round_stochastic(x, numbers, torch.Generator().manual_seed(0))
    assert drawn[3].isnan() if special != special else drawn[3] == special


def test_stochastic_probabilities_are_exact_in_the_normal_range() -> None:
    # Every share here is a multiple of 2^-20, so float32 draws hit it exactly: count the draws.
    generator, count = torch.Generator().manual_seed(0), 400_000
    for share in (2**-10, 0.25, 0.5, 0.999):
        x = torch.full((count,), 1 + 0.125 * share)
        for sign in (1, -1):
            got = round_stochastic(sign * x, E4M3, generator) * sign
            assert set(got.unique().tolist()) <= {1.0, 1.125}
            mean = (got > 1).double().mean().item()
            # 6 standard errors: a false alarm has a chance of 2e-9
            assert abs(mean - share) < 6 * math.sqrt(share * (1 - share) / count)


def test_stochastic_never_moves_a_grid_value_and_saturates() -> None:
    grid = values(torch.arange(-126, 127), E4M3).repeat(200)
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(round_stochastic(grid, E4M3, generator), grid)
    beyond = torch.tensor([448.1, 1e9, INF, -INF]).repeat(100)
    assert round_stochastic(beyond, E4M3, generator).abs().unique().tolist() == [448.0]
    special = torch.tensor([-0.0, 0.0, NAN])
    got = round_stochastic(special, E4M3, generator)
    assert got.signbit().tolist()[:2] == [True, False]
    assert got[2].isnan()


@pytest.mark.parametrize("numbers", [E4M3, GridNumbers(0, -62, 2.0**64), GridNumbers(0, -61, 1.0)])
def test_stochastic_at_the_ends_of_the_draws(numbers: GridNumbers, monkeypatch) -> None:
    generator = torch.Generator()
    grid = values(torch.arange(-300, 301), numbers)
    above = torch.nextafter(grid, 2 * grid)[grid.abs() < numbers.max_value]
    least, most = 0.0, 1 - 2**-24
    for draw in (least, most):
        monkeypatch.setattr(
            "altgrad_core.quantization.kernels.rounding.uniform",
            lambda like, generator, draw=draw: torch.full_like(like, draw),
        )
        assert torch.equal(round_stochastic(grid, numbers, generator), grid)
        rounded = rungs(round_stochastic(above, numbers, generator), numbers)
        moved = (rounded - rungs(above, numbers)).abs()
        assert moved[above != 0].unique().tolist() == [1 if draw == least else 0]


def test_stochastic_draws_are_repeated_by_the_generator() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    draws = [round_stochastic(x, E4M3, torch.Generator().manual_seed(s)) for s in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_inputs_are_left_alone_and_results_carry_no_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    for numbers in (E4M3, GridNumbers(0, -62, 2.0**64), GridNumbers(3, -6, 448.0, NAN)):
        x = torch.randn(8, 6, requires_grad=True)
        before = x.detach().clone()
        view = x.t()[::2]
        for result in (
            round_nearest(view, numbers),
            round_stochastic(view, numbers, generator),
            spacing(view, numbers),
            rungs(view, numbers),
        ):
            assert result.shape == view.shape
            assert not result.requires_grad
        assert torch.equal(x.detach(), before)
        assert torch.equal(round_nearest(view, numbers), round_nearest(view.contiguous(), numbers))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "numbers", [E4M3, E5M2, GridNumbers(0, -62, 2.0**64), GridNumbers(7, -126, 3.38e38, INF)]
)
def test_cuda_gives_the_same_bits(numbers: GridNumbers) -> None:
    bits = torch.arange(-(2**31), 2**31, 65521, dtype=torch.int64).to(torch.int32)
    x = bits.view(torch.float32)
    for call in (round_nearest, spacing, rungs):
        assert torch.equal(
            call(x.cuda(), numbers).cpu().nan_to_num(0.1), call(x, numbers).nan_to_num(0.1)
        )
