"""One kernel that rounds to any sign-magnitude float grid; a format's numbers are its data.

Around ``x`` the grid has the spacing ``step = 2^(max(e, e_min) - M)`` with ``e = floor(log2|x|)``;
that it no longer shrinks below ``2^e_min`` is what makes subnormals. ``e`` is read from the float's
own exponent bits and the step is put together from them, so it is exact. Dividing by a power of
two is exact. ``torch.round`` breaks ties to the even multiple, and neighbouring multiples of a step
have neighbouring codes, so that is the even code. There is one rounding, and no logarithm or power.

With no mantissa bits (M = 0) the code is the exponent field, and the neighbours of ``1.5 * 2^e``
are one and two steps: the even *code* is no longer the even multiple. Where the lower code is
even, ``|x|`` is therefore moved by its own last bit towards zero. The midpoint falls to the lower
neighbour; the next float above it becomes a midpoint and goes to two steps, where it belonged; no
other result changes. (``torch`` and ``ml_dtypes`` send these ties away from zero.)

Float32 and float64 are computed in their own precision. Where the smallest step is a float32
subnormal, which exponent bits cannot express, float32 is rounded in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from altgrad_core.interfaces.draws import uniform
from altgrad_core.interfaces.grid import compute_dtype
from altgrad_core.quantization.kernels.numbers import GridNumbers


class _Layout(NamedTuple):
    """How a float's bits are laid out: its integer twin, mantissa bits, bias and exponent mask."""

    integer: torch.dtype
    mantissa_bits: int
    bias: int
    exponent_mask: int


_LAYOUT = {
    torch.float32: _Layout(torch.int32, 23, 127, 0xFF << 23),
    torch.float64: _Layout(torch.int64, 52, 1023, 0x7FF << 52),
}


def round_nearest(x: Tensor, numbers: GridNumbers) -> Tensor:
    """The nearest grid value for each element, ties to the even code.

    Shape, dtype and device of ``x``, which is float64, float32, bfloat16 or float16 (the last two
    must be able to hold the grid's values; another dtype raises ``TypeError``). NaN stays NaN and
    the sign of zero is kept.
    """
    multiple, step = _multiples(x, numbers, saturate=numbers.overflow is None)
    return _finish(multiple.round_().mul_(step), numbers, x.dtype)


def round_stochastic(x: Tensor, numbers: GridNumbers, generator: torch.Generator) -> Tensor:
    """One of the two grid values around each element, so that the mean is ``x``; else as nearest.

    Away from zero if a uniform draw of the compute dtype is less than the distance, in steps, from
    the neighbour towards zero. The distance is exact. Its probability is exact down to the
    resolution of the draws, 2^-24 in float32 and 2^-53 in float64: that matters to float32 only
    below the smallest normal value, where a probability is at most 2^-24 too high. Grid values
    never move. Where ``numbers.overflow`` is set, overflow is decided after rounding.
    """
    multiple, step = _multiples(x, numbers, saturate=numbers.overflow is None, nearest=False)
    lower = multiple.trunc()
    share = multiple.sub(lower).abs_()
    draw = uniform(torch.empty_like(share, dtype=compute_dtype(x)), generator)
    away = torch.copysign((draw < share).to(share.dtype), multiple)
    return _finish(lower.add_(away).mul_(step), numbers, x.dtype)


def rungs(x: Tensor, numbers: GridNumbers) -> Tensor:
    """The rung (int32) of the nearest grid value for each element, saturating; NaN gives 0."""
    finite = x.detach().nan_to_num(0.0, torch.inf, -torch.inf)
    multiple, step = _multiples(finite, numbers, saturate=True)
    layout = _LAYOUT[step.dtype]
    # A binade adds 2^M rungs: its exponent, shifted to M bits, counts those below.
    m = numbers.mantissa_bits
    lowest = (numbers.min_exponent - m + layout.bias) << layout.mantissa_bits
    below = (step.view(layout.integer) - lowest).bitwise_right_shift_(layout.mantissa_bits - m)
    signed = below.to(step.dtype).copysign_(multiple.round_())
    return multiple.add_(signed).to(torch.int32)


def values(rungs: Tensor, numbers: GridNumbers) -> Tensor:
    """The value (float32) on each rung (any integer dtype); beyond the ends, the end's."""
    m = numbers.mantissa_bits
    top = _top_rung(numbers)
    inside = rungs.clamp(-top, top).to(torch.int32)
    magnitude = inside.abs()
    # The binade above e_min, and the multiple of that binade's step: the inverse of `rungs`.
    binade = (magnitude >> m).sub_(1).clamp_(min=0)
    multiple = magnitude.sub_(binade << m)
    dtype = torch.float32 if _has_normal_steps(torch.float32, numbers) else torch.float64
    layout = _LAYOUT[dtype]
    exponent = binade.to(layout.integer).add_(numbers.min_exponent - m + layout.bias)
    step = exponent.bitwise_left_shift_(layout.mantissa_bits).view(dtype)
    return step.mul_(multiple.to(dtype)).copysign_(inside.to(dtype)).to(torch.float32)


def spacing(x: Tensor, numbers: GridNumbers) -> Tensor:
    """``2^(max(floor(log2|x|), e_min) - M)`` for each element; shape, dtype and device of ``x``.

    ``|x|`` beyond the largest value counts as the largest. NaN gives NaN.
    """
    dtype = compute_dtype(x)
    if numbers.min_exponent + _LAYOUT[dtype].bias < 1:
        dtype = torch.float64
    inside = x.detach().to(dtype).clamp(-numbers.max_value, numbers.max_value)
    binade = _exponent(inside, numbers).view(dtype)
    # Scaling 2^e by 2^-M is exact even where the result is subnormal. 0 * NaN hands NaN on.
    return binade.mul_(2.0**-numbers.mantissa_bits).add_(inside.mul_(0)).to(x.dtype)


def _top_rung(numbers: GridNumbers) -> int:
    """The rung of the largest value."""
    m = numbers.mantissa_bits
    binade = max(math.frexp(numbers.max_value)[1] - 1 - numbers.min_exponent, 0)
    return (binade << m) + int(math.ldexp(numbers.max_value, m - binade - numbers.min_exponent))


def _has_normal_steps(dtype: torch.dtype, numbers: GridNumbers) -> bool:
    """Whether the exponent bits of ``dtype`` can express the smallest step."""
    return numbers.min_exponent - numbers.mantissa_bits + _LAYOUT[dtype].bias >= 1


def _exponent(work: Tensor, numbers: GridNumbers) -> Tensor:
    """The exponent bits of ``2^max(e, e_min)`` for each element, as the float's integer twin."""
    layout = _LAYOUT[work.dtype]
    exponent = work.view(layout.integer) & layout.exponent_mask
    return exponent.clamp_(min=(numbers.min_exponent + layout.bias) << layout.mantissa_bits)


def _multiples(
    x: Tensor, numbers: GridNumbers, *, saturate: bool, nearest: bool = True
) -> tuple[Tensor, Tensor]:
    """``x / step`` before rounding, in a tensor of its own, and the step; in one dtype."""
    dtype = compute_dtype(x)
    work = x.detach().to(dtype if _has_normal_steps(dtype, numbers) else torch.float64)
    if saturate:
        work = work.clamp(-numbers.max_value, numbers.max_value)
    layout = _LAYOUT[work.dtype]
    exponent = _exponent(work, numbers)
    step = exponent.sub_(numbers.mantissa_bits << layout.mantissa_bits).view(work.dtype)
    if numbers.mantissa_bits == 0 and nearest:
        work = _lean_to_even(work, step, numbers)
    return (work.div_(step) if saturate else work / step), step


def _lean_to_even(work: Tensor, step: Tensor, numbers: GridNumbers) -> Tensor:
    """M = 0: ``work``, one float towards zero where the code below is even (see the top)."""
    layout = _LAYOUT[work.dtype]
    # The code is e - e_min + 1. Below 2^e_min the step stands at e_min; its code is odd: no move.
    parity = (step.view(layout.integer) >> layout.mantissa_bits).bitwise_and_(1)
    if (numbers.min_exponent + layout.bias) % 2:
        parity.bitwise_xor_(1)
    return (work.view(layout.integer) - parity).view(work.dtype)


def _finish(rounded: Tensor, numbers: GridNumbers, dtype: torch.dtype) -> Tensor:
    if numbers.overflow is not None:
        special = torch.full_like(rounded, numbers.overflow).copysign_(rounded)
        rounded = torch.where(rounded.abs() > numbers.max_value, special, rounded)
    return rounded.to(dtype)
