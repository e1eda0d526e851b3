"""The rounding kernels compiled for one CPU core: a single pass over memory, at the speed of a copy.

Bit-equal to :mod:`.rounding`, which is the reference. To nearest it goes another way. With
``m = 1.5 · 2^(e + 23 − M)`` in float32, whose last bit is worth one ``step``, ``x + m`` is rounded to a multiple
of it by the addition itself, ties to even, and ``− m`` is exact. The constant is put together from the bits of
``x``, like the step there. It has to be a float32: see ``GridNumbers.fits_float32``. Prefixes of
float32 have a way of their own, below.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from altgrad_core.interfaces.compiled_draws import fill
from altgrad_core.interfaces.compiling import bits_of, flat, float_of, inlined, kernel, size_of
from altgrad_core.quantization.kernels.numbers import GridNumbers

_MANTISSA, _BIAS = 23, 127
_SIGN, _EXPONENT = np.int32(-(2**31)), np.int32(0x7F800000)
_BLOCK = 1 << 14
"""Elements that are drawn for at a time: their draws stay in the cache. A multiple of 4."""
_ARRAY, _ENDS = "float32[::1]", "float32, float32, float32"


class Kernels:
    """The kernels with the numbers of one grid, which ``fits_float32`` or ``is_float32_prefix``."""

    def __init__(self, numbers: GridNumbers) -> None:
        lowest, m = numbers.min_exponent + _BIAS, numbers.mantissa_bits
        largest, special = np.float32(numbers.max_value), numbers.overflow
        beyond = np.float32(largest if special is None else special)
        self._numbers: tuple[np.generic, ...]
        self._stochastic_numbers: tuple[np.generic, ...]
        if numbers.fits_float32:
            limit = largest if special is None else np.float32(2 * largest)
            grid = limit, largest, beyond, np.int32(lowest << _MANTISSA)
            self._nearest = _NEAREST[m == 0, special is not None]
            self._numbers = *grid, np.int32((_MANTISSA - m) << _MANTISSA)
            self._stochastic = _stochastic
            self._stochastic_numbers = *grid, np.int32(m << _MANTISSA)
        else:
            limit = largest if special is None else np.float32(np.inf)
            self._nearest, self._stochastic = _nearest_prefix, _stochastic_prefix
            self._numbers = limit, largest, beyond, np.int32(_MANTISSA - m)
            self._stochastic_numbers = self._numbers

    def nearest(self, x: Tensor, out: Tensor) -> None:
        """Write the nearest grid values of ``x`` into ``out``."""
        self._nearest(flat(x), flat(out), *self._numbers)

    def stochastic(self, x: Tensor, out: Tensor, key: int) -> None:
        """Write one of the two grid values around each of ``x`` into ``out``, with the draws of a key."""
        drawn = x.new_empty(min(x.numel(), _BLOCK))
        both = flat(x), flat(out)
        for start in range(0, x.numel(), _BLOCK):
            fill(drawn, key, start)
            parts = (one[start : start + _BLOCK] for one in both)
            self._stochastic(*parts, drawn.numpy(), *self._stochastic_numbers)


@inlined
def clipped(v: np.float32, limit: np.float32) -> np.float32:
    """Between ``-limit`` and ``limit``, or NaN."""
    return -limit if v < -limit else (limit if v > limit else v)


@inlined
def _signed(size: np.float32, bits: np.int32) -> np.float32:
    """The magnitude of ``size`` with the sign of ``bits``."""
    found: np.float32 = float_of(size_of(size) | (bits & _SIGN))
    return found


@inlined
def nearest_of(c: np.float32, lowest: np.int32, shift: np.int32, lean: np.int32) -> np.float32:
    """The nearest multiple of the step at ``c``, with its sign.

    lowest:
        the bits of the smallest normal value.
    shift:
        ``23 - M``, as an exponent field.
    lean:
        1 for a grid without mantissa bits (see the reference), else 0.
    """
    bits = bits_of(c)
    e = max(bits & _EXPONENT, lowest)
    c = float_of(bits - (((e ^ lowest) >> np.int32(_MANTISSA)) & lean))
    magic = float_of((e + shift) | np.int32(0x400000))
    found: np.float32 = _signed((c + magic) - magic, bits)
    return found


@inlined
def one_of(c: np.float32, lowest: np.int32, shift: np.int32, drawn: np.float32) -> np.float32:
    """The multiple of the step below ``c`` or, if ``drawn`` is less than the share, that above; likewise.

    shift:
        ``M``, as an exponent field.
    """
    bits = bits_of(c)
    step = max(bits & _EXPONENT, lowest) - shift
    multiple = abs(c) * float_of(np.int32(254 << 23) - step)
    lower = np.floor(multiple)
    away = np.float32(1.0) if drawn < multiple - lower else np.float32(0.0)
    found: np.float32 = _signed((lower + away) * float_of(step), bits)
    return found


@inlined
def _ended(found: np.float32, largest: np.float32, beyond: np.float32) -> np.float32:
    """``found``, or what lies beyond the largest."""
    return _signed(beyond, bits_of(found)) if abs(found) > largest else found


def _nearest(lean: int, special: bool) -> Callable[..., None]:
    """The kernel for grids without mantissa bits and for those that do not saturate."""

    @kernel(f"void({_ARRAY}, {_ARRAY}, {_ENDS}, int32, int32)")
    def nearest(
        x: NDArray[np.float32],
        out: NDArray[np.float32],
        limit: np.float32,
        largest: np.float32,
        beyond: np.float32,
        lowest: np.int32,
        shift: np.int32,
    ) -> None:
        for i in range(x.shape[0]):
            found = nearest_of(clipped(x[i], limit), lowest, shift, np.int32(lean))
            out[i] = _ended(found, largest, beyond) if special else found

    return nearest


_NEAREST = {
    (lean, special): _nearest(int(lean), special)
    for lean in (False, True)
    for special in (False, True)
}


@kernel(f"void({_ARRAY}, {_ARRAY}, {_ARRAY}, {_ENDS}, int32, int32)")
def _stochastic(
    x: NDArray[np.float32],
    out: NDArray[np.float32],
    drawn: NDArray[np.float32],
    limit: np.float32,
    largest: np.float32,
    beyond: np.float32,
    lowest: np.int32,
    shift: np.int32,
) -> None:
    for i in range(x.shape[0]):
        found = one_of(clipped(x[i], limit), lowest, shift, drawn[i])
        out[i] = _ended(found, largest, beyond)


# A prefix: the grid is float32's own with fewer mantissa bits, such as bfloat16. Its values are those floats whose last
# bits are 0, subnormals included, and one unit of the bits that stay is the way to the next: integer arithmetic.


@inlined
def prefix_nearest(c: np.float32, dropped: np.int32) -> np.float32:
    """The nearest float32 without as many last bits, with the sign of ``c``."""
    size = size_of(c)
    half = np.int32((np.int32(1) << (dropped - np.int32(1))) - np.int32(1))
    up = np.int32(size + half + ((size >> dropped) & np.int32(1)))
    return _signed(float_of((up >> dropped) << dropped), bits_of(c)) if c == c else c


@inlined
def prefix_drawn(c: np.float32, dropped: np.int32, drawn: np.float32) -> np.float32:
    """One of the two around ``c``, likewise."""
    size = size_of(c)
    whole = size >> dropped
    unit = float_of((np.int32(_BIAS) - dropped) << np.int32(_MANTISSA))
    share = np.float32(size - (whole << dropped)) * unit
    away = np.int32(1) if drawn < share else np.int32(0)
    return _signed(float_of((whole + away) << dropped), bits_of(c)) if c == c else c


@kernel(f"void({_ARRAY}, {_ARRAY}, {_ENDS}, int32)")
def _nearest_prefix(
    x: NDArray[np.float32],
    out: NDArray[np.float32],
    limit: np.float32,
    largest: np.float32,
    beyond: np.float32,
    dropped: np.int32,
) -> None:
    for i in range(x.shape[0]):
        found = prefix_nearest(clipped(x[i], limit), dropped)
        out[i] = _ended(found, largest, beyond)


@kernel(f"void({_ARRAY}, {_ARRAY}, {_ARRAY}, {_ENDS}, int32)")
def _stochastic_prefix(
    x: NDArray[np.float32],
    out: NDArray[np.float32],
    drawn: NDArray[np.float32],
    limit: np.float32,
    largest: np.float32,
    beyond: np.float32,
    dropped: np.int32,
) -> None:
    for i in range(x.shape[0]):
        found = prefix_drawn(clipped(x[i], limit), dropped, drawn[i])
        out[i] = _ended(found, largest, beyond)
