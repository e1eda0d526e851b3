"""How the bits of a sign-magnitude floating-point format are laid out. Free of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Specials = Literal["none", "fn", "ieee"]


@dataclass(frozen=True)
class Layout:
    """One sign bit, E exponent bits, M mantissa bits, from the top.

    With exponent field f and mantissa m a code is worth ``(1 + m / 2^M) * 2^(f - bias)``, or, where
    f = 0, ``(m / 2^M) * 2^(1 - bias)``. Without exponent bits (E = 0) it is worth ``m / 2^M``.

    specials:
        ``none``: every code is a number. ``fn``: all ones behind the sign is NaN, there is no inf.
        ``ieee``: the highest exponent field holds inf (m = 0) and NaN.

    Raises ``ValueError`` for a layout that makes no format or whose values float32 cannot hold.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int | None = None
    specials: Specials = "none"

    def __post_init__(self) -> None:
        e, m = self.exponent_bits, self.mantissa_bits
        if e < 0 or m < 0 or not 2 <= self.bits <= 16:
            raise ValueError(
                f"exponent_bits={e} and mantissa_bits={m} make {self.bits} bits with the sign; "
                "a format has from 2 to 16 bits, and no negative number of either kind."
            )
        if e == 0 and self.bias is not None:
            raise ValueError(
                f"bias={self.bias} has no meaning with exponent_bits=0, where the value is "
                "mantissa / 2^mantissa_bits; leave bias out and let the tensor's scale do its work."
            )
        if self.specials == "ieee" and (e == 0 or m == 0):
            raise ValueError(
                "specials: ieee keeps the highest exponent for inf and NaN, so it needs at least "
                f"one exponent bit and one mantissa bit, but exponent_bits={e} and "
                f"mantissa_bits={m}; use specials: none or fn."
            )
        if e > 0 and self.bias is None:
            object.__setattr__(self, "bias", 2 ** (e - 1) - 1)
        if self.max_code < 1:
            raise ValueError(
                f"exponent_bits={e}, mantissa_bits={m}, specials: {self.specials} leaves no "
                "positive number; use more bits or specials: none."
            )
        self._check_float32()

    def _check_float32(self) -> None:
        e, m = self.exponent_bits, self.mantissa_bits
        step = self.min_exponent - m
        # Decided on exponents: a value far outside would overflow Python's floats, too.
        top = self.min_exponent + max((self.max_code >> m) - 1, 0)
        if step < -149 or top > 127:
            raise ValueError(
                f"exponent_bits={e}, mantissa_bits={m}, bias={self.bias} spans 2^{step} to "
                f"about 2^{top + 1}, but values must be float32 values, from 2^-149 to just below "
                "2^128; choose another bias or fewer exponent bits."
            )

    @property
    def bits(self) -> int:
        """Width of a code, sign included."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal value and of the subnormals; 0 without exponent bits."""
        return 0 if self.bias is None else 1 - self.bias

    @property
    def max_code(self) -> int:
        """Code of the largest finite value."""
        ones = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        if self.specials == "ieee":
            return ones - (1 << self.mantissa_bits)
        return ones - (self.specials == "fn")

    @property
    def overflow_value(self) -> float | None:
        """What overflow gives where it does not saturate: inf, NaN, or None without specials."""
        return {"none": None, "fn": math.nan, "ieee": math.inf}[self.specials]

    def value(self, code: int) -> float:
        """The value of a code, exactly."""
        sign, magnitude = divmod(code, 2 ** (self.bits - 1))
        field, mantissa = divmod(magnitude, 2**self.mantissa_bits)
        if magnitude > self.max_code:
            is_inf = self.specials == "ieee" and mantissa == 0
            number = math.inf if is_inf else math.nan
        else:
            implicit = 2**self.mantissa_bits if field else 0
            exponent = self.min_exponent + max(field - 1, 0) - self.mantissa_bits
            number = math.ldexp(implicit + mantissa, exponent)
        return -number if sign else number

    @property
    def largest(self) -> float:
        """The largest finite value."""
        return self.value(self.max_code)

    @property
    def smallest_positive(self) -> float:
        """The smallest positive value."""
        return self.value(1)

    @property
    def smallest_normal(self) -> float | None:
        """The smallest value with all its mantissa bits; None if every value is subnormal."""
        first = 2**self.mantissa_bits
        return self.value(first) if self.exponent_bits and first <= self.max_code else None

    def facts(self) -> dict[str, object]:
        """The facts that ``altgrad-bench show format`` prints, in order."""
        specials = {
            "none": "none",
            "fn": "NaN where all bits behind the sign are one, no inf",
            "ieee": "inf and NaN in the highest exponent",
        }
        return {
            "exponent bits": self.exponent_bits,
            "mantissa bits": self.mantissa_bits,
            "bias": self.bias,
            "specials": specials[self.specials],
            "largest": self.largest,
            "smallest positive": self.smallest_positive,
            "smallest normal": self.smallest_normal,
        }
