"""The settling of weights that live on their grids, compiled for one CPU core: all of a model's in one launch.

Works on the table of :mod:`~altgrad_core.quantization.resident.table`, as :mod:`.gpu_settling` does. Each weight is
read once to find what it reaches, and once to be rounded at the scale which that asks for, with what compensation
holds. Every number is that of ``Resident.settle`` by torch's operators, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numba import carray
from numpy.typing import NDArray
from torch import Tensor

from altgrad_core.interfaces.compiled_draws import fill_floats
from altgrad_core.interfaces.compiling import (
    INF,
    bits_of,
    float_of,
    floats_at,
    inlined,
    ints_at,
    kernel,
    shorts_at,
    size_of,
)
from altgrad_core.quantization.kernels.compiled import (
    clipped,
    nearest_of,
    one_of,
    prefix_drawn,
    prefix_nearest,
)
from altgrad_core.quantization.resident.table import (
    CEILING,
    CHANGES,
    COUNT,
    ERROR,
    FIXED,
    HIGH,
    KEEPS_INF,
    LIMIT,
    LOW,
    LOWEST,
    MANTISSA,
    REACH,
    ROOM,
    SCALE,
    SMALLEST,
    WEIGHT,
    Row,
)

_ALL, _NO_FRACTION = np.int32(23 << 23), np.int32(-(1 << 23))
_LARGEST = np.float32(torch.finfo(torch.bfloat16).max)
_BLOCK = 1 << 13
"""Elements that are rounded at a time: they and their draws stay in the cache. A multiple of 4."""

_Floats = NDArray[np.float32]


class _Grid(NamedTuple):
    """What a row says of its grid."""

    limit: np.float32
    lowest: np.int32
    mantissa: np.int32
    """The number of its bits, as an exponent field, as ``lowest`` is."""
    lean: np.int32
    """1 without mantissa bits, else 0."""
    dropped: np.int32
    """How many bits float32 has more."""
    keeps_inf: bool
    prefix: bool


def settle(rows: Sequence[Row], keys: Sequence[int], *, kahan: bool, prefix: bool) -> None:
    """Settle the weights of a table, all with compensation or none, and all on grids of one kind.

    keys:
        of the draws, one for each row; none to round to nearest.
    prefix:
        whether the grids are prefixes of float32.
    """
    _settle(np.array(rows, np.int64), np.array(keys, np.uint64), kahan, prefix)


def scales(rows: Sequence[Row]) -> Tensor:
    """``ScaleFit`` for each weight of a table as it is: its stored scale, unless that does not fit."""
    out = torch.empty(len(rows), dtype=torch.float32, device="cpu")
    _scales(np.array(rows, np.int64), out.data_ptr())
    return out


@inlined
def _fitted(row: NDArray[np.int64], scale: np.float32, top: np.int32) -> np.float32:
    """``ScaleFit`` for a weight whose largest magnitude has the bits ``top``, by the numbers of its row."""
    if row[FIXED] or not 0 < top < INF:
        return scale
    amax = float_of(top)
    wanted = bits_of(amax * float_of(row[ROOM]))
    wanted = np.int32(min(max(wanted, row[LOW]), row[HIGH]))
    roomy: np.float32 = float_of((wanted + row[CEILING]) & _NO_FRACTION)
    if amax > scale * float_of(row[REACH]) or amax < scale * float_of(row[SMALLEST]):
        return roomy
    twice: np.float32 = np.float32(2) * roomy
    return scale if scale <= twice else twice


@inlined
def _nearest(grid: _Grid, x: np.float32) -> np.float32:
    """The nearest value of the grid, saturating."""
    c = clipped(x, grid.limit)
    found: np.float32 = (
        prefix_nearest(c, grid.dropped)
        if grid.prefix
        else nearest_of(c, grid.lowest, _ALL - grid.mantissa, grid.lean)
    )
    return found


@inlined
def _one_of(grid: _Grid, x: np.float32, drawn: np.float32) -> np.float32:
    """One of the two values around it, likewise."""
    c = clipped(x, grid.limit)
    found: np.float32 = (
        prefix_drawn(c, grid.dropped, drawn)
        if grid.prefix
        else one_of(c, grid.lowest, grid.mantissa, drawn)
    )
    return found


@inlined
def _rests(grid: _Grid, x: np.float32, stored: np.float32) -> bool:
    """Whether ``x`` is a value of the grid at the stored scale: ``fitting.holds``."""
    found: bool = (_nearest(grid, x / stored) * stored == x) | (
        (size_of(x) == INF) & grid.keeps_inf
    )
    return found


@inlined
def _wide(kept: np.int16) -> np.float32:
    """A bfloat16 as a float32."""
    wide: np.float32 = float_of(np.int32(kept) << 16)
    return wide


@inlined
def _as_bfloat16(x: np.float32) -> np.int16:
    """The bits of the nearest bfloat16, saturating; of zero for what is not finite."""
    bits = bits_of(clipped(x if size_of(x) < INF else np.float32(0), _LARGEST))
    return np.int16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)


@inlined
def _reached(x: _Floats) -> np.int32:
    top = np.int32(0)
    for i in range(x.shape[0]):
        size = size_of(x[i])
        top = size if size > top else top
    return top


@inlined
def _reached_with(
    x: _Floats, error: NDArray[np.int16], grid: _Grid, stored: np.float32
) -> tuple[np.int32, bool]:
    """What the targets reach where each weight that is not at rest has its error, and whether any is not."""
    top, moves = np.int32(0), np.int32(0)
    for i in range(x.shape[0]):
        w, e = x[i], _wide(error[i])
        rest = _rests(grid, w, stored)
        size = size_of(w if rest else w + e)
        top = size if size > top else top
        moves |= np.int32(0) if rest else np.int32(1)
    return top, moves != 0


@inlined
def _restore(
    x: _Floats, error: NDArray[np.int16], out: _Floats, grid: _Grid, stored: np.float32
) -> None:
    """The targets into ``out``; what is left of the error of a weight at rest into ``error``, else none."""
    for i in range(x.shape[0]):
        w, kept = x[i], error[i]
        rest = _rests(grid, w, stored)
        out[i] = w if rest else w + _wide(kept)
        error[i] = kept if rest else np.int16(-0x8000)


@inlined
def _lose(error: NDArray[np.int16], target: _Floats, settled: _Floats) -> None:
    for i in range(target.shape[0]):
        error[i] = _as_bfloat16(_wide(error[i]) + (target[i] - settled[i]))


@inlined
def _round(
    target: _Floats, out: _Floats, drawn: _Floats, grid: _Grid, scale: np.float32, stochastic: bool
) -> np.int32:
    """The bits of the largest magnitude that ``out`` has when the targets are rounded."""
    top = np.int32(0)
    for i in range(target.shape[0]):
        x = target[i]
        inside = x / scale
        rounded = _one_of(grid, inside, drawn[i]) if stochastic else _nearest(grid, inside)
        value = rounded * scale + np.float32(0.0)  # one zero
        value = value if size_of(x) < INF else x
        out[i] = value
        size = size_of(value)
        top = size if size > top else top
    return top


@inlined
def _grid_of(row: NDArray[np.int64], prefix: bool) -> _Grid:
    bits = np.int32(row[MANTISSA])
    return _Grid(
        float_of(row[LIMIT]),
        np.int32(row[LOWEST]),
        np.int32(bits << 23),
        np.int32(bits == 0),
        np.int32(23 - bits),
        row[KEEPS_INF] != 0,
        prefix,
    )


@inlined
def _copy(x: _Floats, out: _Floats) -> None:
    """By hand, since an assignment of slices is one that may overlap, and slow."""
    for i in range(x.shape[0]):
        out[i] = x[i]


@kernel("void(int64[:, ::1], uint64[::1], boolean, boolean)")
def _settle(table: NDArray[np.int64], keys: NDArray[np.uint64], kahan: bool, prefix: bool) -> None:
    drawn, targets = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    stochastic = keys.shape[0] > 0
    for number in range(table.shape[0]):
        row = table[number]
        count, grid = row[COUNT], _grid_of(row, prefix)
        weights = carray(floats_at(row[WEIGHT]), count)
        stored = carray(floats_at(row[SCALE]), 1)
        errors = carray(shorts_at(row[ERROR]), count if kahan else 0)
        if kahan:
            top, moves = _reached_with(weights, errors, grid, stored[0])
        else:
            top, moves = _reached(weights), False
        scale = _fitted(row, stored[0], top)
        top = np.int32(0)
        for start in range(0, count, _BLOCK):
            x, error = weights[start : start + _BLOCK], errors[start : start + _BLOCK]
            target, draws = targets[: x.shape[0]], drawn[: x.shape[0]]
            if moves:
                _restore(x, error, target, grid, stored[0])
            else:
                _copy(x, target)  # else the compiler does not know what overlaps
            if stochastic:
                low, high = keys[number] & np.uint64(0xFFFFFFFF), keys[number] >> np.uint64(32)
                fill_floats(draws, np.uint64(start // 4), low, high)
            # constants make loops that it can vectorise
            if stochastic and prefix:
                found = _round(target, x, draws, _grid_of(row, True), scale, True)
            elif stochastic:
                found = _round(target, x, draws, _grid_of(row, False), scale, True)
            elif prefix:
                found = _round(target, x, draws, _grid_of(row, True), scale, False)
            else:
                found = _round(target, x, draws, _grid_of(row, False), scale, False)
            top = max(top, found)
            if moves:
                _lose(error, target, x)
        scale = _fitted(row, scale, top)
        carray(ints_at(row[CHANGES]), 1)[0] += scale != stored[0]
        stored[0] = scale


@kernel("void(int64[:, ::1], int64)")
def _scales(table: NDArray[np.int64], out_at: int) -> None:
    out = carray(floats_at(out_at), table.shape[0])
    for number in range(table.shape[0]):
        row = table[number]
        stored = carray(floats_at(row[SCALE]), 1)[0]
        out[number] = _fitted(row, stored, _reached(carray(floats_at(row[WEIGHT]), row[COUNT])))
