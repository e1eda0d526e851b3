"""The conformance checks pass for every built-in format, and catch formats that are wrong."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.testing.formats import check_format

BUILT_IN = {
    **{name: {} for name in ("e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0")},
    "bf16": {},
    "fp32": {"overflow": "special"},
    "exmy": {"exponent_bits": 3, "mantissa_bits": 6, "specials": "ieee", "overflow": "special"},
    "table": {"values": [0, 0.5, 0.5, 3, "nan", "inf", -4, -0.0]},
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_formats_conform(build, name: str) -> None:
    check_format(build(name, **BUILT_IN[name]))


@pytest.mark.parametrize(
    "values",
    [[-1.0, 1.0], [0.5, 1.0, 2.0, 7.0], [3.0, -(2.0**100), 2.0**100, 2.0**-100], [0.0, 1.0]],
    ids=["no zero", "positive", "far apart", "one bit"],
)
def test_odd_tables_conform(build, values: list[float]) -> None:
    check_format(build("table", values=values))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_formats_conform_on_cuda(build, name: str) -> None:
    check_format(build(name, **BUILT_IN[name]), device="cuda")


@dataclass(frozen=True)
class E2M1(Format):
    """A correct format; each class below breaks one thing."""

    name: str = "e2m1"
    bits: int = 4

    def code_values(self) -> Tensor:
        half = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
        return torch.cat([half, -half])


class TiesAway(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        nudged = x * (1 + 2.0**-23) if rounding == "nearest" and x.dtype == torch.float32 else x
        return super().round(nudged, rounding, generator)


class Truncates(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        return super().round(x * 0.9999, rounding, generator)


class RoundsTwice(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        return super().round(x.float(), rounding, generator).to(x.dtype)


class LosesTheSignOfZero(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        return super().round(x, rounding, generator) + 0.0


class SwallowsNaN(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        return super().round(x.nan_to_num(0.0) if x.is_floating_point() else x, rounding, generator)


class OverflowsEarly(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        return torch.where(x.abs() >= 6, x * torch.inf, super().round(x, rounding, generator))


class CarriesGradient(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        result = super().round(x, rounding, generator)
        return result + (x - x.detach()) if x.requires_grad else result


class WritesOnItsInput(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        result = super().round(x, rounding, generator)
        if x.ndim == 2:
            x.detach().add_(1)
        return result


class Biased(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        if rounding == "nearest":
            return super().round(x)
        rounded = super().round(x, "stochastic", generator)
        low, keep = super().round(x), torch.rand(x.shape, generator=generator) < 0.05
        return torch.where(keep, low, rounded)


class MovesGridValues(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        if rounding == "stochastic":
            x = x * (1 + 1e-3 * torch.rand(x.shape, generator=generator))
        return super().round(x, rounding, generator)


class HiddenRandomness(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        if rounding == "stochastic":
            torch.rand(1)
        return super().round(x, rounding, generator)


class NeedsNoGenerator(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        if rounding == "stochastic" and generator is None:
            generator = torch.Generator().manual_seed(0)
        return super().round(x, rounding, generator)


class WrongCode(E2M1):
    def encode(self, x):
        codes = super().encode(x)
        return torch.where(codes == 3, 4, codes)


class ForgetsNegativeZero(E2M1):
    def encode(self, x):
        return super().encode(x + 0.0)


class WrongValue(E2M1):
    def decode(self, codes):
        return super().decode(codes) * 2


class EncodesNaN(E2M1):
    def encode(self, x):
        return super().encode(x.nan_to_num(0.0) if x.is_floating_point() else x)


class RungsOffByOne(E2M1):
    def to_rung(self, x):
        return super().to_rung(x) + 1

    def from_rung(self, rungs):
        return super().from_rung(rungs - 1)


class RungsDoNotEnd(E2M1):
    def from_rung(self, rungs):
        return super().from_rung(rungs) * torch.where(rungs > 7, 2.0, 1.0)


class LongRungs(E2M1):
    def to_rung(self, x):
        return super().to_rung(x).long()


class WrongUlpBelowZero(E2M1):
    def ulp(self, x):
        return super().ulp(torch.where(x < 0, x * 0.999, x))


class UlpOfNaN(E2M1):
    def ulp(self, x):
        return super().ulp(x).nan_to_num(1.0)


class WrongMaximum(E2M1):
    @property
    def max_finite(self):
        return 4.0


class TakesIntegers(E2M1):
    def round(self, x, rounding="nearest", generator=None):
        return super().round(x.float() if not x.is_floating_point() else x, rounding, generator)


class WrongWidth(E2M1):
    def code_values(self):
        return super().code_values()[:8]


class NoName(E2M1):
    name = ""

    def __init__(self) -> None:
        super().__init__(name="")


BROKEN = [
    (TiesAway, "round[(][)] in torch.float32 of -0.25 is -0.5 instead of -0.0"),
    (Truncates, "round[(][)] in"),
    (RoundsTwice, "round[(][)] in torch.float64"),
    (LosesTheSignOfZero, "of -0.0 is 0.0 instead of -0.0"),
    (SwallowsNaN, "NaN"),
    (OverflowsEarly, "no code for [+]inf"),
    (CarriesGradient, "gradient"),
    (WritesOnItsInput, "must not change its input"),
    (Biased, "biased"),
    (MovesGridValues, "stochastic rounding of"),
    (HiddenRandomness, "global"),
    (NeedsNoGenerator, "without a generator must raise ValueError"),
    (WrongCode, "decode[(]encode"),
    (ForgetsNegativeZero, "decode[(]encode"),
    (WrongValue, "decode[(][)]"),
    (EncodesNaN, "encode[(]NaN[)]"),
    (RungsOffByOne, "IndexError"),
    (RungsDoNotEnd, "from_rung"),
    (LongRungs, "torch.int64 instead of torch.int32"),
    (WrongUlpBelowZero, "ulp"),
    (UlpOfNaN, "ulp[(]NaN[)]"),
    (WrongMaximum, "max_finite"),
    (TakesIntegers, "integers must raise TypeError"),
    (WrongWidth, "code_values[(][)] must be a float32 tensor of shape [(]16,[)]"),
    (NoName, "name must be a word"),
]


def test_the_format_that_the_broken_ones_break_is_correct() -> None:
    check_format(E2M1())


@pytest.mark.parametrize(("broken", "message"), BROKEN, ids=lambda v: getattr(v, "__name__", ""))
def test_wrong_formats_are_caught(broken: type[E2M1], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_format(broken())
