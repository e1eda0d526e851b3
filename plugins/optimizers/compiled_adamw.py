"""The step of ``manifold_adamw`` compiled for one CPU core: one launch for all weights, one pass over each.

Bit-equal to torch's operators in :mod:`.manifold`, that is, to ``torch.optim.AdamW(fused=True)`` with the stiffness
around it. The same products are added without rounding in between, and what is left of a vector at the end of a tensor
is treated as torch's compiler does. Whether that holds for the torch and the CPU at hand, :mod:`.agreement` tries.

S is ``factor · 2^e``, with the exponent of the weight held between two ends: see
:mod:`~altgrad_core.quantization.kernels.binades`. Powers of two make every step to it exact but one, the division by
the root mean square, so it is the same as if each operator had written its result to memory.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray
from numpy.typing import NDArray

from altgrad_core.interfaces.compiling import (
    INF,
    bits_of,
    float_of,
    floats_at,
    fma,
    fma_of_doubles,
    inlined,
    kernel,
    size_of,
)
from altgrad_plugins.optimizers.compiled_survey import survey

_EXPONENT = np.int32(0x7F800000)
_ONE, _MANTISSA, _HIGHEST = np.int32(127), np.int32(23), np.int32(254)
_FRACTION = np.int32((1 << 23) - 1)
_TINY = np.float32(2.0**-126)

WEIGHT, GRAD, MEAN, SQUARE, STEP, STIFFNESS, SCALE, COUNT, FREE = range(9)
"""Columns of the table of tensors: addresses, 0 for none; the number of elements; 1 for what is on no grid."""
LOWEST, HIGHEST, MANTISSA_BITS, PEAK = range(4)
"""Columns of what is known of the grid; the last is the exponent field of the largest weight, as far as known."""

LANES = 8, 16
"""Of the vectors of a torch: of 256 bits, also where it has none to speak of, or of 512."""
_survey8, _survey16 = (survey(lanes) for lanes in LANES)

_Floats = NDArray[np.float32]


class Common(NamedTuple):
    """What holds for all tensors of a launch, in the kernel's order; ``limit`` is that of S, inf for none."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    limit: float


class Where(NamedTuple):
    """Where S enters, and whether it is normalised; likewise."""

    before: bool
    after: bool
    rms: bool


@inlined
def _power(field: np.int32) -> np.float32:
    """``2^(field - 127)``, for fields from 0 on."""
    whole: np.float32 = float_of(np.int32(max(field, np.int32(1)) << _MANTISSA))
    return whole if field > np.int32(0) else whole * np.float32(0.5)


@inlined
def _adam(
    w: np.float32,
    grad: np.float32,
    mean: np.float32,
    square: np.float32,
    outer: np.float32,
    numbers: tuple[np.float32, ...],
    small: bool,
    last: bool,
) -> tuple[np.float32, np.float32, np.float32]:
    """Weight and moments after a step that is stretched by ``outer``.

    ``last``: it belongs to the rest of a tensor that fills no vector.
    """
    weight, beta2, complement, eps, decay, rate, root, zero = numbers  # as float32
    if last and weight == 0:  # beta1 is 0, and there torch subtracts the product
        weight = np.float32(-0.0)
    mean = fma(weight, grad - mean, mean if small else grad)
    scaled = complement * grad
    square = fma(square, beta2, scaled * grad) if last else fma(scaled, grad, square * beta2)
    step = zero + rate * mean / (np.sqrt(square) / root + eps)
    return fma(outer, step, w * decay), mean, square


@inlined
def _step_at(
    i: int,
    s: np.float32,
    tensors: tuple[_Floats, _Floats, _Floats, _Floats],
    numbers: tuple[np.float32, ...],
    where: tuple[bool, bool, bool],
    last: bool,
) -> None:
    """A step of weight ``i``, whose S is ``s``."""
    weights, grads, means, squares = tensors
    before, after, small = where
    one = np.float32(1)
    weights[i], means[i], squares[i] = _adam(
        weights[i],
        grads[i] * (s if before else one),
        means[i],
        squares[i],
        s if after else one,
        numbers,
        small,
        last,
    )


@inlined
def _move_freely(
    tensors: tuple[_Floats, _Floats, _Floats, _Floats],
    span: tuple[int, int],
    numbers: tuple[np.float32, ...],
    small: bool,
    last: bool,
) -> None:
    """A step of the weights in ``span``, which are on no grid."""
    for i in range(span[0], span[1]):
        _step_at(i, np.float32(1), tensors, numbers, (False, False, small), last)


@inlined
def _move_by(
    tensors: tuple[_Floats, _Floats, _Floats, _Floats],
    stiffness: _Floats,
    span: tuple[int, int],
    numbers: tuple[np.float32, ...],
    where: tuple[bool, bool, bool],
    last: bool,
) -> None:
    """A step of the weights in ``span``, whose S is given."""
    for i in range(span[0], span[1]):
        _step_at(i, stiffness[i], tensors, numbers, where, last)


@inlined
def _move(
    tensors: tuple[_Floats, _Floats, _Floats, _Floats],
    ends: tuple[np.float32, np.float32, np.int32, np.int32],
    span: tuple[int, int],
    numbers: tuple[np.float32, ...],
    where: tuple[bool, bool, bool],
    last: bool,
) -> None:
    """A step of the weights in ``span``, whose S follows from their bits: ``ends`` are factor, limit, low and high."""
    weights = tensors[0]
    factor, limit, low, high = ends
    for i in range(span[0], span[1]):
        bits = np.int32(bits_of(weights[i]) & _EXPONENT)
        bits = bits if bits > low else low  # max and min would not be vectorised
        s = float_of(bits if bits < high else high) * factor
        _step_at(i, s if s < limit else limit, tensors, numbers, where, last)


@inlined
def _squares_of(
    weights: _Floats, low: np.int32, high: np.int32, peak: np.int32, lanes: int
) -> tuple[np.float32, np.int32]:
    """The sum of the squares of S in units of that at the exponent field ``peak``, and the largest weight's bits."""
    unit = _power(np.int32(2) * _ONE - peak)
    whole = weights.shape[0] // lanes * lanes
    sums, tops = np.zeros(16, np.float32), np.zeros(16, np.int32)
    if lanes == 8:
        _survey8(weights.ctypes, whole, low, high, unit, sums.ctypes, tops.ctypes)
    else:
        _survey16(weights.ctypes, whole, low, high, unit, sums.ctypes, tops.ctypes)
    total, top = sums[0], tops[0]
    for lane in range(1, lanes):
        total += sums[lane]
        top = max(top, tops[lane])
    for i in range(whole, weights.shape[0]):
        size = size_of(weights[i])
        relative = float_of(min(max(size & _EXPONENT, low), high)) * unit
        total += relative * relative
        top = max(top, size)
    return total, top


@inlined
def _factor_of(
    weights: _Floats,
    scale: np.float32,
    scaled: bool,
    level: NDArray[np.int32],
    rms: bool,
    lanes: int,
) -> tuple[np.float32, np.int32, np.int32]:
    """S is this times the power of two of each weight between these bits; 0 where that is not exact."""
    nothing = np.float32(0), np.int32(0), np.int32(0)
    bits, m = bits_of(scale), level[MANTISSA_BITS]
    if bits & _FRACTION or bits <= 0 or bits >= INF:  # no power of two
        return nothing
    shift = np.int32(bits >> _MANTISSA) - _ONE
    least, most = level[LOWEST] + _ONE + shift, level[HIGHEST] + _ONE + shift
    if scaled:  # then a gap below 2^-126 counts as that
        least = max(least, m + 1)
    if least < 1 or most < least or most > _HIGHEST or most - m > _HIGHEST:
        return nothing
    low, high = np.int32(least << _MANTISSA), np.int32(most << _MANTISSA)
    peak = np.int32(min(max(level[PEAK], least), most))
    total, top = _squares_of(weights, low, high, peak, lanes)
    if top > INF:  # NaN
        return nothing
    found = np.int32(min(max(np.int32(top >> _MANTISSA), least), most))
    level[PEAK] = found
    if not rms:
        return _power(_ONE - m), low, high
    if found <= m:  # S is below 2^-126 everywhere
        return nothing
    if found != peak:
        total, top = _squares_of(weights, low, high, found, lanes)
    size = np.sqrt(total) / np.float32(np.sqrt(np.float64(weights.shape[0])))
    factor = np.float32(_power(np.int32(2) * _ONE - found) * (np.float32(1) / size))
    if not (factor >= _TINY and factor < np.inf and float_of(low) * factor >= _TINY):
        return nothing
    return factor, low, high


@inlined
def _numbers_of(
    common: NDArray[np.float64], time: np.float64, small: bool, after: bool
) -> tuple[np.float32, ...]:
    """What all weights of a tensor share in its step number ``time``, in the order of :func:`_adam`."""
    lr, beta1, beta2 = common[0], common[1], common[2]
    weight = np.float32(1 - beta1)
    return (
        weight if small else weight - np.float32(1),
        np.float32(beta2),
        np.float32(1 - beta2),
        np.float32(common[3]),
        # where torch's kernel has it, the compiler has fused it; else it is Python's
        np.float32(1 - lr * common[4] if after else fma_of_doubles(-lr, common[4], 1.0)),
        np.float32(-(lr / (1 - beta1**time))),
        np.float32(np.sqrt(1 - beta2**time)),
        # torch adds the step to zeros first, if S stretches it; adding -0 does nothing
        np.float32(0.0) if after else np.float32(-0.0),
    )


@kernel("void(int64[:, ::1], int32[:, ::1], float64[::1], boolean[::1], int64, boolean[::1])")
def update(
    places: NDArray[np.int64],
    levels: NDArray[np.int32],
    common: NDArray[np.float64],
    where: NDArray[np.bool_],
    lanes: int,
    done: NDArray[np.bool_],
) -> None:
    """One step of all tensors of a table, which has the columns above.

    ``lanes`` is the number of elements of a vector of torch's. A tensor is left alone, and ``done`` false for it,
    where S would need a division that is not exact: for a scale that is no power of two, a NaN, or values at the
    ends of float32's range. What is on no grid takes AdamW's own step.
    """
    limit, rms = np.float32(common[5]), where[2]
    small = np.float32(1 - common[1]) < np.float32(0.5)
    for row in range(places.shape[0]):
        place, count = places[row], places[row, COUNT]
        weights, grads = (
            carray(floats_at(place[WEIGHT]), count),
            carray(floats_at(place[GRAD]), count),
        )
        means, squares = (
            carray(floats_at(place[MEAN]), count),
            carray(floats_at(place[SQUARE]), count),
        )
        tensors = weights, grads, means, squares
        free = place[FREE] != 0
        before, after = where[0] and not free, where[1] and not free
        step = carray(floats_at(place[STEP]), 1)
        numbers = _numbers_of(common, np.float64(step[0] + np.float32(1)), small, after)
        flags = before, after, small
        whole = count - count % lanes
        if free:
            _move_freely(tensors, (0, whole), numbers, small, False)
            _move_freely(tensors, (whole, count), numbers, small, True)
        elif place[STIFFNESS] != 0:
            given = carray(floats_at(place[STIFFNESS]), count)
            _move_by(tensors, given, (0, whole), numbers, flags, False)
            _move_by(tensors, given, (whole, count), numbers, flags, True)
        else:
            scaled = place[SCALE] != 0
            scale = carray(floats_at(place[SCALE]), 1)[0] if scaled else np.float32(1)
            factor, low, high = _factor_of(weights, scale, scaled, levels[row], rms, lanes)
            if factor == 0:
                continue
            ends = factor, limit, low, high
            _move(tensors, ends, (0, whole), numbers, flags, False)
            _move(tensors, ends, (whole, count), numbers, flags, True)
        step[0] += np.float32(1)
        done[row] = True
