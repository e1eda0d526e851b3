"""The rounding kernels in Triton, for tensors on a GPU: one launch, no wait.

The arithmetic is that of :mod:`.compiled`, the draws those of :mod:`~altgrad_core.interfaces.draws`, and the results
:mod:`.rounding`'s bit for bit. A grid's numbers are arguments: one kernel serves all formats.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from altgrad_core.interfaces.gpu_draws import as_int64, block_draws
from altgrad_core.quantization.kernels.numbers import GridNumbers

_BLOCK = 1024


@triton.jit
def _clipped(x, LIMIT):  # type: ignore[no-untyped-def]
    return tl.where(x > LIMIT, LIMIT, tl.where(x < -LIMIT, -LIMIT, x))


@triton.jit  # type: ignore[untyped-decorator]
def _finished(size, bits, x, largest, beyond, SPECIAL: tl.constexpr):  # type: ignore[no-untyped-def]
    """The magnitude with the sign of ``bits``; a NaN stays one."""
    if SPECIAL:
        size = tl.where(size > largest, beyond, size)
    whole = size.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    signed = (whole | (bits & (-2147483648))).to(tl.float32, bitcast=True)
    return tl.where(x == x, signed, x)


@triton.jit  # type: ignore[untyped-decorator]
def _nearest(  # type: ignore[no-untyped-def]
    source,
    out,
    count,
    limit,
    largest,
    beyond,
    lowest,
    shift,
    odd,
    LEAN: tl.constexpr,
    SPECIAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(source + i, mask=i < count, other=0.0)
    c = _clipped(x, limit)
    bits = c.to(tl.int32, bitcast=True)
    e = tl.maximum(bits & 0x7F800000, lowest)
    if LEAN:
        c = (bits - (((e >> 23) ^ odd) & 1)).to(tl.float32, bitcast=True)
    magic = ((e + shift) | 0x400000).to(tl.float32, bitcast=True)
    rounded = (c + magic) - magic
    tl.store(out + i, _finished(tl.abs(rounded), bits, x, largest, beyond, SPECIAL), mask=i < count)


@triton.jit  # type: ignore[untyped-decorator]
def _stochastic(  # type: ignore[no-untyped-def]
    source,
    out,
    count,
    key,
    limit,
    largest,
    beyond,
    lowest,
    shift,
    SPECIAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(source + i, mask=i < count, other=0.0)
    c = _clipped(x, limit)
    bits = c.to(tl.int32, bitcast=True)
    step = tl.maximum(bits & 0x7F800000, lowest) - shift
    multiple = tl.abs(c) * ((254 << 23) - step).to(tl.float32, bitcast=True)
    lower = tl.floor(multiple)
    draw = block_draws(key, BLOCK)
    size = (lower + tl.where(draw < multiple - lower, 1.0, 0.0)) * step.to(tl.float32, bitcast=True)
    tl.store(out + i, _finished(size, bits, x, largest, beyond, SPECIAL), mask=i < count)


class Kernels:
    """The kernels with the numbers of one grid, which ``fits_float32``; see :mod:`.backends`."""

    def __init__(self, numbers: GridNumbers) -> None:
        lowest, m = numbers.min_exponent + 127, numbers.mantissa_bits
        largest, special = numbers.max_value, numbers.overflow
        ends = (largest, largest, largest) if special is None else (2 * largest, largest, special)
        self._numbers = *ends, lowest << 23, (23 - m) << 23, lowest & 1
        self._stochastic_numbers = *ends, lowest << 23, m << 23
        self._lean, self._special = m == 0, special is not None

    def nearest(self, x: Tensor, out: Tensor) -> None:
        """Write the nearest grid values of ``x`` into ``out``."""
        special, lean = self._special, self._lean
        call = _nearest[_grid(x)]
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # Triton launches where CUDA is at the moment
            call(x, out, x.numel(), *self._numbers, LEAN=lean, SPECIAL=special, BLOCK=_BLOCK)

    def stochastic(self, x: Tensor, out: Tensor, key: int) -> None:
        """Write one of the two grid values around each of ``x`` into ``out``, with the draws of a key."""
        call, numbers = _stochastic[_grid(x)], self._stochastic_numbers
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            call(x, out, x.numel(), as_int64(key), *numbers, SPECIAL=self._special, BLOCK=_BLOCK)


def _grid(x: Tensor) -> tuple[int]:
    return (max(1, -(-x.numel() // _BLOCK)),)
