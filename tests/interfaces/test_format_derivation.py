"""What the base class derives from a table of values, against brute force in rational arithmetic."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from altgrad_core.interfaces.format import Format

INF, NAN = float("inf"), float("nan")


class Tabulated(Format):
    name = "tabulated"

    def __init__(self, values: list[float]) -> None:
        self.bits = (len(values) - 1).bit_length()
        self.values = torch.tensor(values, dtype=torch.float32)

    def code_values(self) -> Tensor:
        return self.values


def nearest(values: list[float], x: float) -> float:
    """The definition: the nearest finite value; ties to the even code, else to the even rung."""
    finite = sorted({v for v in values if math.isfinite(v)})
    inside = Fraction(min(max(x, finite[0]), finite[-1]))
    distance = [abs(inside - Fraction(v)) for v in finite]
    best = [i for i, d in enumerate(distance) if d == min(distance)]
    if len(best) == 1:
        return finite[best[0]]
    codes = {v: next(c for c, w in enumerate(values) if w == v) for v in finite}
    if 0.0 in codes:  # +0 comes before -0
        positive = [c for c, w in enumerate(values) if w == 0 and math.copysign(1, w) > 0]
        codes[0.0] = positive[0] if positive else codes[0.0]
    even = [i for i in best if codes[finite[i]] % 2 == 0]
    if len(even) == 1:
        return finite[even[0]]
    zero = min(range(len(finite)), key=lambda i: (abs(finite[i]), -finite[i]))
    return next(finite[i] for i in best if (i - zero) % 2 == 0)


float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
small = st.sampled_from([k / 4 for k in range(-12, 13)])
entries = st.one_of(small, small, float32, st.sampled_from([-0.0, NAN, INF, -INF]))
tables = st.lists(entries, min_size=8, max_size=8).filter(
    lambda v: len({w for w in v if math.isfinite(w)}) > 1 and any(0 < w < INF for w in v)
)


@settings(max_examples=200, deadline=None)
@given(values=tables, extra=st.lists(float32, max_size=5), double=st.booleans())
def test_rounding_is_the_definition(values: list[float], extra: list[float], double: bool) -> None:
    fmt = Tabulated(values)
    dtype = torch.float64 if double else torch.float32
    real = np.float64 if double else np.float32
    finite = sorted({v for v in values if math.isfinite(v)})
    middle = [real(a / 2 + b / 2) for a, b in pairwise(finite)]
    beside = [np.nextafter(m, real(s)) for m in middle for s in (INF, -INF)]
    x = [float(v) for v in [*finite, *middle, *beside, *extra]]
    want = [nearest(values, v) for v in x]
    got = fmt.round(torch.tensor(x, dtype=dtype))
    assert got.dtype == dtype
    assert got.tolist() == want
    signs = [math.copysign(1, w if w else v) for v, w in zip(x, want, strict=True)]
    assert [math.copysign(1, g) for g in got.tolist()] == signs

    zero = min(range(len(finite)), key=lambda i: (abs(finite[i]), -finite[i]))
    rungs = fmt.to_rung(torch.tensor(x, dtype=dtype))
    assert rungs.tolist() == [finite.index(w) - zero for w in want]
    assert fmt.from_rung(rungs).tolist() == want
    assert fmt.decode(fmt.encode(torch.tensor(x, dtype=dtype))).tolist() == want
    ends = fmt.round(torch.tensor([INF, -INF], dtype=dtype)).tolist()
    assert ends == [finite[-1], finite[0]]


@settings(max_examples=100, deadline=None)
@given(values=tables, extra=st.lists(float32, min_size=1, max_size=5))
def test_ulp_is_the_gap_away_from_zero(values: list[float], extra: list[float]) -> None:
    fmt = Tabulated(values)
    finite = sorted({v for v in values if math.isfinite(v)})
    gaps = [float(torch.tensor(b - a)) for a, b in pairwise(finite)]
    for x in [*finite, *extra]:
        if x >= 0:
            i = max((k for k, v in enumerate(finite) if v <= x), default=0)
        else:
            i = min((k for k, v in enumerate(finite) if v >= x), default=len(gaps)) - 1
        want = gaps[min(max(i, 0), len(gaps) - 1)]
        assert fmt.ulp(torch.tensor(x)).item() == want, x


def test_the_tie_rule_by_hand() -> None:
    # codes 0 1 2 3; the midpoints 0.5, 1.5 and 2.5 go to the even codes 0, 2 and 2
    plain = Tabulated([0.0, 1.0, 2.0, 3.0])
    assert plain.round(torch.tensor([0.5, 1.5, 2.5])).tolist() == [0.0, 2.0, 2.0]
    # 0 and 1 have the codes 0 and 2, both even: to the even rung, 0. 1 and 2 have 2 and 1: to 1.
    # 2 and 3 have 1 and 3, both odd: to the even rung, 2.
    shuffled = Tabulated([0.0, 2.0, 1.0, 3.0])
    assert shuffled.round(torch.tensor([0.5, 1.5, 2.5])).tolist() == [0.0, 1.0, 2.0]


def test_duplicates_and_zeros() -> None:
    fmt = Tabulated([1.0, -0.0, NAN, 0.0, 1.0, -1.0, NAN, 0.0])
    x = torch.tensor([1.0, 0.0, -0.0, -1.0, NAN])
    assert fmt.encode(x).tolist() == [0, 3, 1, 5, 2]  # the lowest code of each
    assert fmt.to_rung(x).tolist() == [1, 0, 0, -1, 0]
    only_negative = Tabulated([1.0, -0.0])
    assert only_negative.encode(torch.tensor([0.0, -0.0, 1.0])).tolist() == [1, 1, 0]
    assert not only_negative.from_rung(torch.tensor(0)).signbit()
    unsigned = Tabulated([0.0, 1.0])
    assert unsigned.encode(torch.tensor([0.0, -0.0, -3.0])).tolist() == [0, 0, 0]
    assert unsigned.round(torch.tensor([-0.0])).signbit().all()


def test_specials_of_a_table_are_codes_and_nothing_rounds_to_them() -> None:
    fmt = Tabulated([0.0, 1.0, INF, NAN])
    assert fmt.decode(torch.tensor([2, 3])).tolist()[0] == INF
    assert fmt.round(torch.tensor([INF, 1e30])).tolist() == [1.0, 1.0]
    assert fmt.encode(torch.tensor([INF])).tolist() == [1]
    assert fmt.encode(torch.tensor([NAN])).tolist() == [3]
    assert (fmt.max_finite, fmt.min_positive) == (1.0, 1.0)
    with pytest.raises(ValueError, match="tabulated has no code for NaN"):
        Tabulated([0.0, 1.0]).encode(torch.tensor([0.0, NAN]))


def test_a_float64_is_not_rounded_twice() -> None:
    fmt = Tabulated([0.0, 1.0, 2.0, 3.0])
    x = torch.tensor([0.5 + 2**-50, 1.5 - 2**-50], dtype=torch.float64)
    assert x.float().tolist() == [0.5, 1.5]
    assert fmt.round(x).tolist() == [1.0, 1.0]
    assert fmt.round(x.float()).tolist() == [0.0, 2.0]


@dataclass(frozen=True)
class Frozen(Format):
    name: str = "frozen"
    bits: int = 2
    values: tuple[float, ...] = (0.0, 1.0, -0.0, -1.0)

    def code_values(self) -> Tensor:
        return torch.tensor(self.values)


@dataclass
class Mutable(Format):
    name: str = "mutable"
    bits: int = 2
    values: list[float] = field(default_factory=lambda: [0.0, 1.0, -0.0, -1.0])

    def code_values(self) -> Tensor:
        return torch.tensor(self.values)


class ByClass(Format):
    name = "by class"
    bits = 2

    def code_values(self) -> Tensor:
        return torch.tensor([0.0, 1.0, -0.0, -1.0])


@pytest.mark.parametrize("fmt", [Frozen(), Mutable(), ByClass()], ids=lambda f: f.name)
def test_any_constructor_will_do(fmt: Format) -> None:
    x = torch.tensor([0.7, -0.2, -9.0])
    for made in (fmt, copy.deepcopy(fmt)):
        assert made.round(x).tolist() == [1.0, 0.0, -1.0]
        assert made.encode(x).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(3), r"shape \(4,\)"),
        (torch.zeros(4, dtype=torch.float64), "float32 tensor"),
        (torch.tensor([1.0, 1.0, NAN, INF]), "two distinct finite values"),
        (torch.tensor([-1.0, -2.0, 0.0, 0.0]), "one of them positive"),
    ],
)
def test_a_bad_table_is_refused(values: Tensor, message: str) -> None:
    fmt = Tabulated([0.0, 1.0, 2.0, 3.0])
    fmt.values = values
    with pytest.raises(ValueError, match=message):
        fmt.round(torch.zeros(1))


def test_wrong_calls_are_refused() -> None:
    fmt = Tabulated([0.0, 1.0, 2.0, 1e30])
    x = torch.ones(2)
    with pytest.raises(ValueError, match="'nearest' or 'stochastic', not 'up'"):
        fmt.round(x, "up")
    with pytest.raises(ValueError, match="explicit generator"):
        fmt.round(x, "stochastic")
    for wrong in (x.int(), x.bool(), x.to(torch.complex64), x.to(torch.float8_e5m2)):
        for call in (fmt.round, fmt.encode, fmt.to_rung, fmt.ulp):
            with pytest.raises(TypeError, match=r"x\.float\(\)"):
                call(wrong)
    with pytest.raises(TypeError, match=r"torch\.float16 cannot hold"):
        fmt.round(x.half())
    for code in (-1, 4):
        with pytest.raises(ValueError, match=r"codes from 0 to 3, but the tensor holds"):
            fmt.decode(torch.tensor([0, code]))
    assert fmt.decode(torch.tensor([], dtype=torch.int64)).shape == (0,)


def test_integers_of_any_width_are_codes_and_rungs() -> None:
    fmt = Tabulated([0.0, 1.0, -0.0, -1.0])
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        assert fmt.decode(torch.tensor([1, 3], dtype=dtype)).tolist() == [1.0, -1.0]
        assert fmt.from_rung(torch.tensor([0, 1, 9], dtype=dtype)).tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("values", [[-1.0, 0.0, 0.5, 3.0], [-(2.0**127), 1.0, 2.0, 2.0**127]])
def test_stochastic_rounding_has_the_mean_of_its_input(values: list[float]) -> None:
    fmt, count = Tabulated(values), 100_000
    generator = torch.Generator().manual_seed(3)
    finite = sorted(values)
    for low, high in pairwise(finite):
        x = torch.full((count,), low * 0.7 + high * 0.3, dtype=torch.float64)
        got = fmt.round(x, "stochastic", generator)
        assert set(got.unique().tolist()) == {low, high}
        share = (got == high).double().mean().item()
        assert abs(share - 0.3) < 6 * math.sqrt(0.21 / count)  # false alarm: 2e-9
    ends = torch.tensor([*values, INF, -INF]).repeat(50)
    assert torch.equal(fmt.round(ends, "stochastic", generator), fmt.round(ends))
    x = torch.tensor([NAN, -0.0])
    got = fmt.round(x, "stochastic", generator)
    assert got[0].isnan()
    if 0.0 in values:
        assert got[1].signbit()


def test_tables_made_in_inference_mode_serve_training() -> None:
    fmt = Tabulated([0.0, 1.0, 2.0, 3.0])
    with torch.inference_mode():
        fmt.round(torch.ones(2))
    weight = torch.ones(2, requires_grad=True)
    (weight * fmt.round(weight)).sum().backward()
    assert weight.grad.tolist() == [1.0, 1.0]
