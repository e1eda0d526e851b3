"""The rounding kernels in Triton, for tensors on a GPU: one launch, no wait.

The arithmetic is that of :mod:`.compiled`, the draws those of :mod:`~altgrad_core.interfaces.draws`, and the results
:mod:`.rounding`'s bit for bit. A grid's numbers are arguments: one kernel serves all formats.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from altgrad_core.interfaces.gpu_draws import as_int64, block_draws
from altgrad_core.interfaces.gpu_scaling import at_scale, place_in, put
from altgrad_core.quantization.kernels.numbers import GridNumbers

_BLOCK = 1024


@triton.jit
def clipped(x, LIMIT):  # type: ignore[no-untyped-def]
    """``x`` between ``-LIMIT`` and ``LIMIT``; NaN stays."""
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
def on_grid(  # type: ignore[no-untyped-def]
    x,
    limit,
    largest,
    beyond,
    lowest,
    shift,
    odd,
    key,
    STOCHASTIC: tl.constexpr,
    LEAN: tl.constexpr,
    SPECIAL: tl.constexpr,
    PREFIX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The program's ``BLOCK`` float32 on the grid of these numbers; of a prefix, ``shift`` is how many bits go."""
    c = clipped(x, limit)
    bits = c.to(tl.int32, bitcast=True)
    if PREFIX:
        size = bits & 0x7FFFFFFF
        whole = size >> shift
        if STOCHASTIC:
            share = (size - (whole << shift)).to(tl.float32) * _power_of_two(-shift)
            whole += tl.where(block_draws(key, BLOCK) < share, 1, 0)
        else:
            whole = (size + ((1 << (shift - 1)) - 1) + (whole & 1)) >> shift
        return _finished(
            (whole << shift).to(tl.float32, bitcast=True), bits, x, largest, beyond, True
        )
    if STOCHASTIC:
        step = tl.maximum(bits & 0x7F800000, lowest) - shift
        multiple = tl.abs(c) * ((254 << 23) - step).to(tl.float32, bitcast=True)
        lower = tl.floor(multiple)
        away = tl.where(block_draws(key, BLOCK) < multiple - lower, 1.0, 0.0)
        size = (lower + away) * step.to(tl.float32, bitcast=True)
        return _finished(size, bits, x, largest, beyond, SPECIAL)
    e = tl.maximum(bits & 0x7F800000, lowest)
    if LEAN:
        c = (bits - (((e >> 23) ^ odd) & 1)).to(tl.float32, bitcast=True)
    magic = ((e + shift) | 0x400000).to(tl.float32, bitcast=True)
    return _finished(tl.abs((c + magic) - magic), bits, x, largest, beyond, SPECIAL)


@triton.jit
def _power_of_two(exponent):  # type: ignore[no-untyped-def]
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _round(  # type: ignore[no-untyped-def]
    source,
    scale,
    out,
    count,
    limit,
    largest,
    beyond,
    lowest,
    shift,
    odd,
    key,
    SCALED: tl.constexpr,
    KEEP_INF: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    LEAN: tl.constexpr,
    SPECIAL: tl.constexpr,
    PREFIX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i, inside = place_in(count, BLOCK)
    given = tl.load(source + i, mask=inside, other=0.0).to(tl.float32)
    x = at_scale(given, scale, SCALED)
    value = on_grid(
        x, limit, largest, beyond, lowest, shift, odd, key, STOCHASTIC, LEAN, SPECIAL, PREFIX, BLOCK
    )
    put(out, i, inside, value, given, scale, SCALED, KEEP_INF)


class Kernels:
    """The kernels of a grid that ``fits_float32`` or ``is_float32_prefix``; see :mod:`.backends`."""

    def __init__(self, numbers: GridNumbers) -> None:
        lowest, m = numbers.min_exponent + 127, numbers.mantissa_bits
        largest, special = numbers.max_value, numbers.overflow
        prefix = not numbers.fits_float32
        top = math.inf if prefix else 2 * largest
        ends = (largest, largest, largest) if special is None else (top, largest, special)
        shifts = (23 - m, 23 - m) if prefix else ((23 - m) << 23, m << 23)
        self._numbers = [(*ends, lowest << 23, shift, lowest & 1) for shift in shifts]
        self._flags = {"LEAN": m == 0, "SPECIAL": special is not None, "PREFIX": prefix}

    def nearest(self, x: Tensor, out: Tensor) -> None:
        """Write the nearest grid values of ``x`` into ``out``."""
        self.scaled(x, None, out)

    def stochastic(self, x: Tensor, out: Tensor, key: int) -> None:
        """Write one of the two grid values around each of ``x`` into ``out``, with the draws of a key."""
        self.scaled(x, None, out, key)

    def scaled(
        self,
        x: Tensor,
        scale: Tensor | None,
        out: Tensor,
        key: int | None = None,
        *,
        keep_inf: bool = False,
    ) -> None:
        """Write ``scale · round(x / scale)`` into ``out``, of any dtype: one division, one product, one cast.

        scale:
            float32, 0-d; None for 1.
        key:
            of the draws; None to nearest.
        keep_inf:
            whether inf stays inf.
        """
        stochastic = key is not None
        flags = {
            "SCALED": scale is not None,
            "KEEP_INF": keep_inf,
            "STOCHASTIC": stochastic,
        }
        numbers, unit = self._numbers[stochastic], x if scale is None else scale
        call = _round[_grid(x)]
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # Triton launches where CUDA is at the moment
            call(
                x,
                unit,
                out,
                x.numel(),
                *numbers,
                as_int64(key or 0),
                **flags,
                **self._flags,
                BLOCK=_BLOCK,
            )


def _grid(x: Tensor) -> tuple[int]:
    return (max(1, -(-x.numel() // _BLOCK)),)
