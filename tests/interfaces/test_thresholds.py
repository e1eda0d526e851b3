"""A rounding rule of a format's own: one statement that all who round go by."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn

from altgrad_core import keep_on_grid, quantize_model
from altgrad_core.format_card import format_card
from altgrad_core.interfaces.format import Format
from altgrad_core.testing.formats import check_format
from altgrad_plugins.monitors.stability.ranges import Range


class NeverToZero(Format):
    """±{1, 2, 4} and 0; geometric thresholds, and nothing but zero becomes zero."""

    name, bits = "never", 3

    def __init__(self, rule: list[float] | None = None) -> None:
        self.rule = [-3.0, -1.25, 0.0, 0.0, 1.25, 3.0] if rule is None else rule

    def code_values(self) -> Tensor:
        return torch.tensor([0.0, 1, 2, 4, math.nan, -4, -2, -1])

    def thresholds(self) -> Tensor | None:
        return torch.tensor(self.rule, dtype=torch.float64)


class OwnRound(NeverToZero):
    """The same rule, kept to itself."""

    def thresholds(self) -> None:
        return None

    def round(self, x, rounding="nearest", generator=None):
        rounded = super().round(x, rounding, generator)
        return torch.where((rounded == 0) & (x != 0), x.sign().to(x.dtype), rounded)


def test_the_rule_by_hand() -> None:
    fmt = NeverToZero()
    x = torch.tensor([1e-45, -1e-45, 0.0, -0.0, 1.2, 1.25, 1.3, 2.9, 3.0, 9.0, -1.25, -3.0, -9.0])
    want = [1.0, -1, 0, 0, 1, 2, 2, 2, 2, 4, -2, -2, -4]
    assert fmt.round(x).tolist() == want
    assert fmt.round(x).signbit().tolist() == x.signbit().tolist()
    assert fmt.decode(fmt.encode(x)).tolist() == want
    assert fmt.from_rung(fmt.to_rung(x)).tolist() == want
    assert fmt.round(x.double()).tolist() == want
    check_format(fmt)


def test_stochastic_rounding_has_no_choice_where_one_value_has_all() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor([0.01, -0.01, 0.0, 1.5, 4.0]).repeat(1000, 1)
    drawn = NeverToZero().round(x, "stochastic", generator)
    assert drawn[:, :3].unique(dim=0).tolist() == [[1.0, -1.0, 0.0]]
    assert drawn[:, 3].mean() == pytest.approx(1.5, abs=0.06)
    assert (drawn[:, 4] == 4).all()
    downwards = NeverToZero([-4.0, -1.25, -1.0, 1.0, 1.25, 4.0])  # 0 and ±2 have all beside them
    check_format(downwards)
    assert downwards.round(torch.tensor([0.99, 1.0, 3.99, -3.99])).tolist() == [0.0, 1, 2, -2]


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    shares=st.lists(st.sampled_from([0.0, 2**-40, 0.1, 0.5, 0.75, 1.0]), min_size=6, max_size=6),
    double=st.booleans(),
)
def test_any_rule_is_kept(shares: list[float], double: bool) -> None:
    values = [-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]
    rule = [a + (b - a) * share for (a, b), share in zip(pairwise(values), shares, strict=True)]
    fmt = NeverToZero(rule)
    dtype = torch.float64 if double else torch.float32
    points = torch.tensor([*values, *rule, *torch.linspace(-4, 4, 65).tolist()], dtype=dtype)
    up, down = torch.tensor(math.inf, dtype=dtype), torch.tensor(-math.inf, dtype=dtype)
    x = torch.cat([points, torch.nextafter(points, up), torch.nextafter(points, down)])
    codes = dict(zip(fmt.code_values().tolist(), range(8), strict=True))
    for value, got in zip(x.tolist(), fmt.round(x).tolist(), strict=True):
        inside = min(max(value, -4.0), 4.0)
        at = max(i for i in range(6) if values[i] <= inside)
        low, high, point = values[at], values[at + 1], rule[at]
        tie = point if point in (low, high) else (low, high)[codes[high] % 2 == 0]
        side = Fraction(inside) - Fraction(point)
        want = inside if inside in values else tie if side == 0 else (low, high)[side > 0]
        assert got == want, (value, rule)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ([0.0] * 5, "shape .6,., one number between each two neighbouring values"),
        ([-3.0, -1.25, 0.0, 0.0, 2.25, 3.0], "2.25 at position 4, .* between the values 1.0 and"),
        ([-3.0, math.nan, 0.0, 0.0, 1.25, 3.0], "nan at position 1"),
    ],
)
def test_a_rule_that_is_none_is_refused(rule: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeverToZero(rule).round(torch.ones(1))


def test_a_rule_that_is_not_stated_is_refused_with_what_to_do() -> None:
    with pytest.raises(AssertionError, match=r"instead of -?0\.0 .*states it in thresholds\(\)"):
        check_format(OwnRound())


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_weight_on_the_grid_never_becomes_zero_and_a_nudge_off_zero_is_no_stall(
    rounding: str,
) -> None:
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, 1.0, -1.0, 0.0]]))
    quantize_model(layer, NeverToZero(), residency="grid", rounding=rounding)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    keep_on_grid(layer, optimizer, torch.Generator().manual_seed(0))
    layer.weight.grad = torch.tensor([[0.0, 0.99, -0.99, -0.01]])
    optimizer.step()
    assert layer.weight.tolist() == [[4.0, 1.0, -1.0, 1.0]]


@pytest.mark.parametrize(
    ("rule", "said"), [(None, "only zero becomes zero"), ([-3, -1.5, -1, 1, 1.5, 3], "")]
)
def test_the_card_says_so(rule: list[float] | None, said: str) -> None:
    console = Console(file=io.StringIO(), width=80, no_color=True)
    console.print(format_card(NeverToZero(rule)))
    (line,) = (s for s in console.file.getvalue().splitlines() if s.startswith("  nearest"))
    assert "by thresholds of the format's own" in line
    assert line.rstrip().endswith(said)
    assert ("only zero" in line) == bool(said)


def test_nothing_but_zero_counts_as_underflow() -> None:
    held = Range.of(NeverToZero())
    x = torch.tensor([0.0, 1e-45, -1e-45, 0.3, 5.0, -5.0])
    assert [int(count) for count in held.counts(x, torch.ones(()))] == [2, 0]
