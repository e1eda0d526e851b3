"""The rounding kernels compiled for one CPU core: a single pass over memory, at the speed of a copy.

Bit-equal to :mod:`.rounding`, which is the reference. To nearest it goes another way. With
``m = 1.5 · 2^(e + 23 − M)`` in float32, whose last bit is worth one ``step``, ``x + m`` is rounded to a multiple
of it by the addition itself, ties to even, and ``− m`` is exact. The constant is put together from the bits of
``x``, like the step there. It has to be a float32: see ``GridNumbers.fits_float32``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from altgrad_core.interfaces.compiled_draws import draw
from altgrad_core.quantization.kernels.numbers import GridNumbers

_MANTISSA, _BIAS = 23, 127
_NEAREST_TYPE = "void(float32[::1], float32[::1], float32, float32, float32, int32, int32, int32)"
_STOCHASTIC_TYPE = (
    "void(float32[::1], float32[::1], float32, float32, float32, int32, int32, uint64, uint64)"
)
_PREFIX_TYPE = "void(float32[::1], float32[::1], float32, float32, float32, int32)"
_PREFIX_KEY_TYPE = (
    "void(float32[::1], float32[::1], float32, float32, float32, int32, uint64, uint64)"
)
"""With its types, a kernel is compiled, or read from numba's cache, when the module is imported."""


class Kernels:
    """The kernels with the numbers of one grid, which ``fits_float32``; see :mod:`.backends`."""

    def __init__(self, numbers: GridNumbers) -> None:
        lowest, m = numbers.min_exponent + _BIAS, numbers.mantissa_bits
        largest, special = np.float32(numbers.max_value), numbers.overflow
        limit = largest if special is None else np.float32(2 * largest)
        ends = limit, largest, np.float32(largest if special is None else special)
        bits = np.int32(lowest << _MANTISSA)
        self._nearest = _NEAREST[m == 0, special is not None]
        self._numbers = *ends, bits, np.int32((_MANTISSA - m) << _MANTISSA), np.int32(lowest & 1)
        self._stochastic_numbers = *ends, bits, np.int32(m << _MANTISSA)

    def nearest(self, x: Tensor, out: Tensor) -> None:
        """Write the nearest grid values of ``x`` into ``out``."""
        self._nearest(x.view(-1).numpy(), out.view(-1).numpy(), *self._numbers)

    def stochastic(self, x: Tensor, out: Tensor, key: int) -> None:
        """Write one of the two grid values around each of ``x`` into ``out``, with the draws of a key."""
        halves = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)
        _stochastic(x.view(-1).numpy(), out.view(-1).numpy(), *self._stochastic_numbers, *halves)


class PrefixKernels:
    """The same for a grid that is float32's own with fewer mantissa bits, such as bfloat16.

    Its values are those floats whose last bits are 0, subnormals included, and one unit of the bits that stay is
    the way to the next, so all is integer arithmetic on the bits.
    """

    def __init__(self, numbers: GridNumbers) -> None:
        largest, special = np.float32(numbers.max_value), numbers.overflow
        limit = largest if special is None else np.float32(np.inf)
        ends = limit, largest, np.float32(largest if special is None else special)
        self._numbers = *ends, np.int32(_MANTISSA - numbers.mantissa_bits)

    def nearest(self, x: Tensor, out: Tensor) -> None:
        """Write the nearest grid values of ``x`` into ``out``."""
        _nearest_prefix(x.view(-1).numpy(), out.view(-1).numpy(), *self._numbers)

    def stochastic(self, x: Tensor, out: Tensor, key: int) -> None:
        """Write one of the two grid values around each of ``x`` into ``out``, with the draws of a key."""
        halves = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)
        _stochastic_prefix(x.view(-1).numpy(), out.view(-1).numpy(), *self._numbers, *halves)


@njit  # type: ignore[untyped-decorator]
def _bits(value: np.float32) -> np.int32:
    return np.float32(value).view(np.int32)


@njit  # type: ignore[untyped-decorator]
def _float(bits: np.int32) -> np.float32:
    return np.int32(bits).view(np.float32)


def _nearest(lean: bool, special: bool) -> Callable[..., None]:
    """The kernel for grids without mantissa bits (see the reference) and for those that do not saturate."""

    @njit(_NEAREST_TYPE, cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
    def kernel(
        x: NDArray[np.float32],
        out: NDArray[np.float32],
        limit: np.float32,
        largest: np.float32,
        beyond: np.float32,
        lowest: np.int32,
        shift: np.int32,
        odd: np.int32,
    ) -> None:
        for i in range(x.shape[0]):
            v = x[i]
            c = -limit if v < -limit else (limit if v > limit else v)
            bits = _bits(c)
            e = max(bits & np.int32(0x7F800000), lowest)
            if lean:
                c = _float(bits - (((e >> np.int32(23)) ^ odd) & np.int32(1)))
            magic = _float((e + shift) | np.int32(0x400000))
            size = _bits((c + magic) - magic) & np.int32(0x7FFFFFFF)
            if special:
                size = _bits(beyond if _float(size) > largest else _float(size))
            out[i] = _float((size & np.int32(0x7FFFFFFF)) | (bits & np.int32(-2147483648)))

    return kernel  # type: ignore[no-any-return]


_NEAREST = {
    (lean, special): _nearest(lean, special) for lean in (False, True) for special in (False, True)
}


_BLOCK = 1024
"""Elements that are drawn for at a time; a multiple of 4."""


@njit(_STOCHASTIC_TYPE, cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _stochastic(
    x: NDArray[np.float32],
    out: NDArray[np.float32],
    limit: np.float32,
    largest: np.float32,
    beyond: np.float32,
    lowest: np.int32,
    shift: np.int32,
    key0: np.uint64,
    key1: np.uint64,
) -> None:
    drawn = np.empty(_BLOCK, np.float32)
    for start in range(0, x.shape[0], _BLOCK):
        draw(drawn, np.uint64(start // 4), key0, key1)
        for j in range(min(_BLOCK, x.shape[0] - start)):
            v = x[start + j]
            c = -limit if v < -limit else (limit if v > limit else v)
            bits = _bits(c)
            step = max(bits & np.int32(0x7F800000), lowest) - shift
            multiple = abs(c) * _float(np.int32(254 << 23) - step)
            lower = np.floor(multiple)
            away = np.float32(1.0) if drawn[j] < multiple - lower else np.float32(0.0)
            size = (lower + away) * _float(step)
            size = beyond if size > largest else size
            sign = bits & np.int32(-2147483648)
            out[start + j] = _float((_bits(size) & np.int32(0x7FFFFFFF)) | sign)


@njit(inline="always")  # type: ignore[untyped-decorator]
def _clipped(v: np.float32, limit: np.float32) -> np.float32:
    return -limit if v < -limit else (limit if v > limit else v)


@njit(inline="always")  # type: ignore[untyped-decorator]
def _settled(whole: np.int32, v: np.float32, largest: np.float32, beyond: np.float32) -> np.float32:
    """The magnitude with these bits and the sign of ``v``; what lies beyond the largest; or NaN."""
    size = _float(whole)
    size = beyond if size > largest else size
    signed = (_bits(size) & np.int32(0x7FFFFFFF)) | (_bits(v) & np.int32(-2147483648))
    return _float(signed) if v == v else v


@njit(_PREFIX_TYPE, cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _nearest_prefix(
    x: NDArray[np.float32],
    out: NDArray[np.float32],
    limit: np.float32,
    largest: np.float32,
    beyond: np.float32,
    dropped: np.int32,
) -> None:
    half = np.int32((1 << (dropped - 1)) - 1)
    for i in range(x.shape[0]):
        bits = _bits(_clipped(x[i], limit)) & np.int32(0x7FFFFFFF)
        up = np.int32(bits + half + ((bits >> dropped) & np.int32(1)))
        out[i] = _settled((up >> dropped) << dropped, x[i], largest, beyond)


@njit(_PREFIX_KEY_TYPE, cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _stochastic_prefix(
    x: NDArray[np.float32],
    out: NDArray[np.float32],
    limit: np.float32,
    largest: np.float32,
    beyond: np.float32,
    dropped: np.int32,
    key0: np.uint64,
    key1: np.uint64,
) -> None:
    drawn = np.empty(_BLOCK, np.float32)
    unit = np.float32(1.0 / (1 << dropped))
    for start in range(0, x.shape[0], _BLOCK):
        draw(drawn, np.uint64(start // 4), key0, key1)
        for j in range(min(_BLOCK, x.shape[0] - start)):
            v = x[start + j]
            bits = _bits(_clipped(v, limit)) & np.int32(0x7FFFFFFF)
            whole = bits >> dropped
            share = np.float32(bits - (whole << dropped)) * unit
            away = np.int32(1) if drawn[j] < share else np.int32(0)
            out[start + j] = _settled(np.int32((whole + away) << dropped), v, largest, beyond)
