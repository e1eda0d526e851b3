"""The numbers of a sign-magnitude float grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class GridNumbers:
    """A sign-magnitude grid: in binade e the multiples of ``2^(max(e, e_min) - M)``.

    mantissa_bits:
        M, stored mantissa bits.
    min_exponent:
        e_min, the exponent of the smallest normal value and of the subnormals. Its exponent field
        is 1; without an exponent (E = 0) it is 0 and all values are subnormal.
    max_value:
        the largest finite value.
    overflow:
        what a value that rounds beyond ``max_value`` becomes: ``None`` for ``max_value`` itself
        (saturate), ``nan``, or ``inf``; with the value's own sign.
    """

    mantissa_bits: int
    min_exponent: int
    max_value: float
    overflow: float | None = None

    @cached_property
    def fits_float32(self) -> bool:
        """Whether float32 has every constant that the kernels need.

        True for all formats of 8 bits; not for those that use the exponents at the ends of float32's range.
        """
        beyond = math.frexp(self.max_value)[1]  # of twice the largest value, that of what overflows
        least = self.min_exponent - self.mantissa_bits
        return beyond + 23 - self.mantissa_bits <= 127 and least >= -126

    @property
    def is_float32_prefix(self) -> bool:
        """Whether the values are float32's own, to the last subnormal, with fewer mantissa bits, but some."""
        return self.min_exponent == -126 and 0 < self.mantissa_bits < 23
