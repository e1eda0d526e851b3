"""What Triton kernels share that round at a scale: the quotient before it, and the product and the cast behind it."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def divided(x, unit):  # type: ignore[no-untyped-def]
    """``x / unit``. Of a power of two the inverse is exact, and a product costs a fraction of a quotient."""
    bits = unit.to(tl.int32, bitcast=True)
    if ((bits & 0x7FFFFF) == 0) & (bits > 0) & (bits < (254 << 23)):
        found = x * ((254 << 23) - bits).to(tl.float32, bitcast=True)
    else:
        found = tl.div_rn(x, tl.zeros_like(x) + unit)
    return found


@triton.jit  # type: ignore[untyped-decorator]
def place_in(count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The places of the program's block in a tensor, and which of them there are."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return i, i < count


@triton.jit  # type: ignore[untyped-decorator]
def at_scale(x, scale, SCALED: tl.constexpr):  # type: ignore[no-untyped-def]
    """``x / scale``, which lies in memory; ``x`` where there is none."""
    if SCALED:
        x = divided(x, tl.load(scale))
    return x


@triton.jit  # type: ignore[untyped-decorator]
def put(  # type: ignore[no-untyped-def]
    out, i, inside, value, given, scale, SCALED: tl.constexpr, KEEP_INF: tl.constexpr
):
    """Write ``scale · value`` in the dtype of ``out``; or inf where it is ``given`` and stays."""
    if SCALED:
        value *= tl.load(scale)
    if KEEP_INF:
        value = tl.where(tl.abs(given) == float("inf"), given, value)
    tl.store(out + i, value.to(out.dtype.element_ty), mask=inside)
