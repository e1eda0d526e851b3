"""Posits of 8 bits: Gustafson and Yonemoto 2017, and the Posit Standard of 2022.

Behind the sign come a *regime*, a run of equal bits ended by the other bit, ``es`` exponent bits, and the
fraction; what does not fit is cut off and counts as zeros. A run of n ones means k = n - 1, one of n zeros
k = -n, and the value is ``2^(k·2^es + exponent) · (1 + fraction)``. Negative numbers are two's complement.

The shorter the regime, the more bits are left for the fraction: posits are precise around 1, and at either
end have no fraction at all. So amax must not go to the largest value, as it does for floats;
altgrad-bench finds out where from the values alone (``headroom``: 1024 for es = 1).

**Rounding** is to the nearest *bit pattern*: between two neighbours the threshold is the posit with one bit
more. Where a fraction is left that is the midpoint; where exponent bits are cut off it is the geometric mean.
And nothing but zero rounds to zero: what is smaller than the smallest posit becomes that. (The standard
makes NaR of inf; here inf becomes the largest value, as in all formats that saturate.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from altgrad_core.interfaces import Format, Rounding
from altgrad_core.interfaces.grid import compute_dtype, untransformed
from altgrad_posit8.settings import Posit8Settings

BITS = 8


def posit(code: int, bits: int, es: int) -> float:
    """The value of a code: NaN for NaR, the code with only its first bit set."""
    if code == 0:
        return 0.0
    if code == 1 << (bits - 1):
        return float("nan")
    if code >> (bits - 1):
        return -posit((1 << bits) - code, bits, es)
    digits = f"{code:0{bits - 1}b}"
    run = len(digits) - len(digits.lstrip(digits[0]))
    regime = run - 1 if digits[0] == "1" else -run
    rest = digits[run + 1 :].ljust(es, "0")
    exponent, fraction = int(rest[:es] or "0", 2), rest[es:]
    mantissa = 1 + int(fraction or "0", 2) / 2 ** len(fraction)
    return mantissa * 2.0 ** (regime * 2**es + exponent)


class PositTable(Format):
    """The values and the thresholds: all that it takes. altgrad-bench derives the rest."""

    bits = BITS

    def __init__(self, name: str = "posit8", es: int = 1) -> None:
        self.name = name
        self.es = es

    def code_values(self) -> Tensor:
        return torch.tensor([posit(code, BITS, self.es) for code in range(1 << BITS)])

    def thresholds(self) -> Tensor:
        # Codes in two's complement rise with their values, from -127 on; one more bit, set to 1, is
        # the posit between a code and the next. Around zero everything belongs to the neighbours.
        codes = range(1 - (1 << BITS - 1), (1 << BITS - 1) - 1)
        between = [0.0 if c in (-1, 0) else posit((2 * c + 1) % 512, 9, self.es) for c in codes]
        return torch.tensor(between, dtype=torch.float64)

    def facts(self) -> dict[str, object]:
        return {"exponent bits": self.es, "specials": "NaR, code 128, is NaN"}


class Posit8(PositTable):
    """The same, faster: what depends on 17 bits of a float32 alone is looked up by them.

    No value or threshold has more than 7 bits behind the point, so all float32 that share their upper 16
    bits and are not exactly those bits round alike, and have the same ULP and rung. The 17th bit says
    whether anything is left below. The tables are filled by the derivation itself.
    """

    def __init__(self, name: str = "posit8", es: int = 1) -> None:
        super().__init__(name, es)
        self._tables: dict[tuple[str, torch.device], Tensor] = {}

    def __reduce__(self) -> tuple[type[Posit8], tuple[str, int]]:
        return Posit8, (self.name, self.es)  # copies make tables of their own

    def round(
        self, x: Tensor, rounding: Rounding = "nearest", generator: torch.Generator | None = None
    ) -> Tensor:
        if rounding != "nearest" or compute_dtype(x) != torch.float32:
            return super().round(x, rounding, generator)
        self.check_dtype(x)
        return self._looked_up("round", super().round, x).to(x.dtype)

    def to_rung(self, x: Tensor) -> Tensor:
        if compute_dtype(x) != torch.float32:
            return super().to_rung(x)
        return self._looked_up("to_rung", super().to_rung, x)

    def ulp(self, x: Tensor) -> Tensor:
        if compute_dtype(x) != torch.float32:
            return super().ulp(x)
        self.check_dtype(x)
        return self._looked_up("ulp", super().ulp, x).to(x.dtype)

    def _looked_up(self, what: str, derived: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        key = (what, x.device)
        if key not in self._tables:
            with untransformed():
                self._tables[key] = derived(_representatives()).to(x.device)
        bits = x.detach().float().view(torch.int32)
        below = (bits & 0xFFFF).add_(0xFFFF).bitwise_right_shift_(16)
        index = (bits >> 15).bitwise_and_(0x1FFFE).bitwise_or_(below)
        return self._tables[key][index]


def _representatives() -> Tensor:
    """For each 17 bits a float32 that has them: the upper 16, and whether anything is left below."""
    key = torch.arange(1 << 17)
    pattern = (key >> 1 << 16) | (key & 1)
    return (pattern - (pattern >> 31 << 32)).to(torch.int32).view(torch.float32)


def build(name: str, settings: Posit8Settings) -> Posit8:
    """What the offer points at."""
    return Posit8(name, settings.es)
