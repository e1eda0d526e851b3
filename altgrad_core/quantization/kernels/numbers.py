"""The numbers of a sign-magnitude float grid."""

from __future__ import annotations

from dataclasses import dataclass


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
