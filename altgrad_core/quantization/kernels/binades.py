"""Formats whose gap is a power of two that goes by the binade alone, which a kernel reads off the exponent bits.

That is so for every sign-magnitude float, and for what has the same values by another way, such as a table. It
is found out by asking the format for its gaps, so that it holds for formats of any author.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from altgrad_core.interfaces.format import LISTED_BITS, Format

_MANTISSA, _BIAS, _FIELDS = 23, 127, 255
_EXPONENT = 0xFF << _MANTISSA


class Binades(NamedTuple):
    """``ulp(x) = 2^(clamp(floor(log2|x|), lowest, highest) - mantissa_bits)``, at 0 that of the lowest."""

    lowest: int
    highest: int
    mantissa_bits: int


_FOUND = "_binades"
"""Where a format keeps the answer: one that is compared by its fields need have no hash."""


def binades(fmt: Format) -> Binades | None:
    """How the gaps of ``fmt`` follow from the exponent of a float32; None where they do not, or cannot be listed.

    The lowest is at least -126. Asked once for each format, on the CPU.
    """
    kept = vars(fmt)
    if _FOUND not in kept:
        kept[_FOUND] = _search(fmt) if fmt.bits <= LISTED_BITS else None
    found: Binades | None = kept[_FOUND]
    return found


def _search(fmt: Format) -> Binades | None:
    """Gaps are constant between neighbouring values, so it is enough to ask at each value and just below it."""
    first, last = fmt.to_rung(
        torch.tensor([-torch.inf, torch.inf], dtype=torch.float32, device="cpu")
    ).tolist()
    sizes = fmt.from_rung(torch.arange(first, last + 1, device="cpu")).abs().numpy()
    powers = (np.arange(_FIELDS, dtype=np.int32) << _MANTISSA).view(np.float32)
    sizes = np.concatenate([sizes, np.nextafter(sizes, np.float32(0)), powers])
    points = torch.from_numpy(np.concatenate([sizes, -sizes]))
    gaps = fmt.ulp(points).numpy()
    fractions, exponents = np.frexp(gaps)
    if not np.isfinite(gaps).all() or (fractions != 0.5).any():
        return None
    fields = (points.numpy().view(np.int32) & _EXPONENT) >> _MANTISSA
    exponent = exponents.astype(np.int64) - 1
    by_field = exponent[2 * len(sizes) - _FIELDS :]  # of the negative powers of two, in order
    found = _fit(by_field)
    if (
        found is None
        or abs(found.mantissa_bits) > _BIAS - 1
        or (exponent != _gap_exponents(found)[fields]).any()
    ):
        return None
    return found


def _fit(by_field: NDArray[np.int64]) -> Binades | None:
    """The only numbers that can be right."""
    least, most = int(by_field[0]), int(by_field[-1])
    rising = np.flatnonzero(by_field > least)
    if not len(rising):
        return Binades(0, 0, -least)
    lowest = int(rising[0]) - 1 - _BIAS
    if lowest < 1 - _BIAS:
        return None
    return Binades(lowest, lowest + most - least, lowest - least)


def _gap_exponents(found: Binades) -> NDArray[np.int64]:
    """The exponent of the gap for each exponent field of a float32."""
    exponents = np.arange(_FIELDS, dtype=np.int64) - _BIAS
    return exponents.clip(found.lowest, found.highest) - found.mantissa_bits
