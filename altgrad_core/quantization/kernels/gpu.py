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


@triton.jit
def nearest(c, lowest, mantissa):  # type: ignore[no-untyped-def]
    """The nearest value, with either zero, for ``c`` within the ends of a grid; anything for NaN.

    lowest, mantissa:
        the field of the lowest binade and the number of mantissa bits, both where a float32 has its exponent.
    """
    bits = c.to(tl.int32, bitcast=True)
    e = tl.maximum(bits & 0x7F800000, lowest)
    parity = tl.where(mantissa == 0, ((e ^ lowest) >> 23) & 1, 0)  # see rounding: ties if M = 0
    magic = ((e + ((23 << 23) - mantissa)) | 0x400000).to(tl.float32, bitcast=True)
    return ((bits - parity).to(tl.float32, bitcast=True) + magic) - magic


@triton.jit
def drawn(c, lowest, mantissa, draws):  # type: ignore[no-untyped-def]
    """The magnitude of one of the two values around ``c``, likewise."""
    step = tl.maximum(c.to(tl.int32, bitcast=True) & 0x7F800000, lowest) - mantissa
    multiple = tl.abs(c) * ((254 << 23) - step).to(tl.float32, bitcast=True)
    lower = tl.floor(multiple)
    away = tl.where(draws < multiple - lower, 1.0, 0.0)
    return (lower + away) * step.to(tl.float32, bitcast=True)


@triton.jit
def prefix_nearest(c, mantissa):  # type: ignore[no-untyped-def]
    """The magnitude of the nearest float32 with fewer mantissa bits."""
    shift = 23 - (mantissa >> 23)
    size = c.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    whole = (size + ((1 << (shift - 1)) - 1) + ((size >> shift) & 1)) >> shift
    return (whole << shift).to(tl.float32, bitcast=True)


@triton.jit
def prefix_drawn(c, mantissa, draws):  # type: ignore[no-untyped-def]
    """That of one of the two around ``c``."""
    shift = 23 - (mantissa >> 23)
    size = c.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    whole = size >> shift
    share = (size - (whole << shift)).to(tl.float32) * _power_of_two(-shift)
    whole += tl.where(draws < share, 1, 0)
    return (whole << shift).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def on_grid(  # type: ignore[no-untyped-def]
    x,
    limit,
    largest,
    beyond,
    lowest,
    mantissa,
    key,
    STOCHASTIC: tl.constexpr,
    SPECIAL: tl.constexpr,
    PREFIX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The program's ``BLOCK`` float32 on the grid of these numbers; NaN stays NaN, and zero keeps its sign."""
    c = clipped(x, limit)
    if PREFIX and STOCHASTIC:
        size = prefix_drawn(c, mantissa, block_draws(key, BLOCK))
    elif PREFIX:
        size = prefix_nearest(c, mantissa)
    elif STOCHASTIC:
        size = drawn(c, lowest, mantissa, block_draws(key, BLOCK))
    else:
        size = tl.abs(nearest(c, lowest, mantissa))
    if SPECIAL:
        size = tl.where(size > largest, beyond, size)
    whole = size.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    sign = c.to(tl.int32, bitcast=True) & (-2147483648)
    return tl.where(x == x, (whole | sign).to(tl.float32, bitcast=True), x)


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
    mantissa,
    key,
    inverse_step,
    SCALED: tl.constexpr,
    CODES: tl.constexpr,
    KEEP_INF: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    SPECIAL: tl.constexpr,
    PREFIX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i, inside = place_in(count, BLOCK)
    given = tl.load(source + i, mask=inside, other=0.0).to(tl.float32)
    x = at_scale(given, scale, SCALED)
    value = on_grid(
        x, limit, largest, beyond, lowest, mantissa, key, STOCHASTIC, SPECIAL, PREFIX, BLOCK
    )
    if CODES:
        put(out, i, inside, value * inverse_step, given, scale, False, KEEP_INF)
    else:
        put(out, i, inside, value, given, scale, SCALED, KEEP_INF)


class Kernels:
    """The kernels of a grid that ``fits_float32`` or ``is_float32_prefix``; see :mod:`.backends`."""

    def __init__(self, numbers: GridNumbers) -> None:
        largest, special = numbers.max_value, numbers.overflow
        prefix = not numbers.fits_float32
        top = math.inf if prefix else 2 * largest
        ends = (largest, largest, largest) if special is None else (top, largest, special)
        fields = numbers.min_exponent + 127, numbers.mantissa_bits
        self._numbers = *ends, *(field << 23 for field in fields)
        self._flags = {"SPECIAL": special is not None or prefix, "PREFIX": prefix}

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
        step: float | None = None,
    ) -> None:
        """Write ``scale · round(x / scale)`` into ``out``, of any dtype: one division, one product, one cast.

        scale:
            float32, 0-d; None for 1.
        key:
            of the draws; None to nearest.
        keep_inf:
            whether inf stays inf.
        step:
            a power of two: what is written is ``round(x / scale) / step``, codes of native products.
        """
        stochastic = key is not None
        flags = {
            "SCALED": scale is not None,
            "CODES": step is not None,
            "KEEP_INF": keep_inf,
            "STOCHASTIC": stochastic,
        }
        unit = x if scale is None else scale
        call = _round[_grid(x)]
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # Triton launches where CUDA is at the moment
            call(
                x,
                unit,
                out,
                x.numel(),
                *self._numbers,
                as_int64(key or 0),
                1 / (step or 1.0),
                **flags,
                **self._flags,
                BLOCK=_BLOCK,
            )


def _grid(x: Tensor) -> tuple[int]:
    return (max(1, -(-x.numel() // _BLOCK)),)
