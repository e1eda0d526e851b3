"""The settling of weights that live on their grids, in Triton: all of a model's in a few launches, without a wait.

A table has a row of int64 for each weight: where it and its buffers lie, the numbers of its grid, and those of the
rule for its scale. Each program has a block of one weight. The first launch finds what the weights reach, the second
rounds them at the scale which that asks for, the third writes the scales down. Every number is that of
``Resident.settle`` by torch's operators, bit for bit: no product is contracted into a sum, and no quotient is an
estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from altgrad_core.interfaces.gpu_draws import as_int64, draws_of
from altgrad_core.interfaces.gpu_scaling import divided
from altgrad_core.quantization.kernels.gpu import (
    clipped,
    drawn,
    nearest,
    prefix_drawn,
    prefix_nearest,
)
from altgrad_core.quantization.kernels.gpu_scales import amax
from altgrad_core.quantization.kernels.gpu_tables import (
    BLOCK,
    block_of,
    floats_at,
    numbers,
    read,
    table_of,
    write,
)
from altgrad_core.quantization.resident.table import COLUMNS, COUNT, RULE, Row

_WEIGHT, _SCALE, _CHANGES, _ERROR, _COUNT = (tl.constexpr(i) for i in range(5))
_LIMIT, _LOWEST, _MANTISSA, _KEEPS_INF = (tl.constexpr(i) for i in range(5, 9))
_FIXED, _REACH, _SMALLEST, _ROOM, _LOW, _HIGH, _CEILING = (tl.constexpr(i) for i in range(9, 16))
_WIDTH = tl.constexpr(COLUMNS + 1)
_INF = tl.constexpr(0x7F800000)


@triton.jit  # type: ignore[untyped-decorator]
def _float(row, COLUMN: tl.constexpr):  # type: ignore[no-untyped-def]
    """The float32 whose bits a column holds."""
    return tl.load(row + COLUMN).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _int(row, COLUMN: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.load(row + COLUMN).to(tl.int32)


@triton.jit
def _size(x):  # type: ignore[no-untyped-def]
    """The bits of ``|x|``, among which those of NaN are the largest."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _by_rule(scale, top, reach, smallest, room, low, high, ceiling):  # type: ignore[no-untyped-def]
    """``ScaleFit`` for a weight whose largest magnitude has the bits ``top``, with the rule's numbers."""
    amax = top.to(tl.float32, bitcast=True)
    wanted = (amax * room.to(tl.float32, bitcast=True)).to(tl.int32, bitcast=True)
    wanted = tl.minimum(tl.maximum(wanted, low), high)
    roomy = ((wanted + ceiling) & (-8388608)).to(tl.float32, bitcast=True)
    beyond = amax > scale * reach.to(tl.float32, bitcast=True)
    leaves = beyond | (amax < scale * smallest.to(tl.float32, bitcast=True))
    twice = 2.0 * roomy
    new = tl.where(leaves, roomy, tl.where(scale <= twice, scale, twice))
    return tl.where((top > 0) & (top < _INF), new, scale)


@triton.jit
def _fitted(row, scale, top):  # type: ignore[no-untyped-def]
    """The same by the numbers of the row."""
    new = _by_rule(
        scale,
        top,
        _int(row, _REACH),
        _int(row, _SMALLEST),
        _int(row, _ROOM),
        _int(row, _LOW),
        _int(row, _HIGH),
        _int(row, _CEILING),
    )
    return tl.where(_int(row, _FIXED) == 0, new, scale)


@triton.jit
def _fit(top, stored, out, reach, smallest, room, low, high, ceiling):  # type: ignore[no-untyped-def]
    found = tl.load(top)
    scale = tl.load(stored)
    tl.store(out, _by_rule(scale, found, reach, smallest, room, low, high, ceiling))


@triton.jit  # type: ignore[untyped-decorator]
def _nearest(row, x, PREFIX: tl.constexpr):  # type: ignore[no-untyped-def]
    """The nearest value of the row's grid, saturating; anything for NaN, and either zero."""
    c, mantissa = clipped(x, _float(row, _LIMIT)), _int(row, _MANTISSA) << 23
    if PREFIX:
        size = prefix_nearest(c, mantissa)
        found = tl.where(c < 0, -size, size)
    else:
        found = nearest(c, _int(row, _LOWEST), mantissa)
    return found


@triton.jit  # type: ignore[untyped-decorator]
def _stochastic(row, x, key, chunk, PREFIX: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One of the two values around it, likewise."""
    c, draws = clipped(x, _float(row, _LIMIT)), draws_of(key, chunk, BLOCK)
    mantissa = _int(row, _MANTISSA) << 23
    if PREFIX:  # noqa: SIM108
        size = prefix_drawn(c, mantissa, draws)
    else:
        size = drawn(c, _int(row, _LOWEST), mantissa, draws)
    return tl.where(c < 0, -size, size)


@triton.jit  # type: ignore[untyped-decorator]
def _resting(row, x, stored, PREFIX: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where the weight is a value of the grid at the stored scale: ``fitting.holds``."""
    inside = divided(x, stored)
    found = (_nearest(row, inside, PREFIX) * stored == x) & (inside == inside)
    return tl.where(_size(x) == _INF, _int(row, _KEEPS_INF) != 0, found)


@triton.jit  # type: ignore[untyped-decorator]
def _error_of(row, first, left, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The compensation, which bfloat16 keeps."""
    kept = tl.load(row + _ERROR).to(tl.pointer_type(tl.int16)) + first
    return (read(kept, left, 0, BLOCK).to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def _as_bfloat16(x):  # type: ignore[no-untyped-def]
    """The bits of the nearest bfloat16, saturating; of zero for what is not finite."""
    x = tl.where(_size(x) < _INF, x, 0.0)
    bits = clipped(x, 3.3895313892515355e38).to(tl.int32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16)


@triton.jit  # type: ignore[untyped-decorator]
def _look(  # type: ignore[no-untyped-def]
    table, owners, state, rows, KAHAN: tl.constexpr, PREFIX: tl.constexpr, BLOCK: tl.constexpr
):
    """What each target reaches, and whether any of its weights is not at rest."""
    owner, row, first, left = block_of(table, owners, _WIDTH, _COUNT, BLOCK)
    x = read(floats_at(row, _WEIGHT) + first, left, 0.0, BLOCK)
    if KAHAN:
        rest = _resting(row, x, tl.load(floats_at(row, _SCALE)), PREFIX)
        moves = (rest == 0) & (tl.arange(0, BLOCK) < left)
        x = tl.where(rest, x, x + _error_of(row, first, left, BLOCK))
        tl.atomic_max(state + 2 * rows + owner, tl.max(moves.to(tl.int32), 0), sem="relaxed")
    tl.atomic_max(state + owner, tl.max(_size(x), 0), sem="relaxed")


@triton.jit  # type: ignore[untyped-decorator]
def _round(  # type: ignore[no-untyped-def]
    table,
    owners,
    state,
    keys,
    skipped,
    rows,
    SKIPPING: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    KAHAN: tl.constexpr,
    PREFIX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Round every weight to its grid, at the scale that its target asks for."""
    owner, row, first, left = block_of(table, owners, _WIDTH, _COUNT, BLOCK)
    if SKIPPING:
        left = tl.where(tl.load(skipped) != 0, 0, left)
    stored = tl.load(floats_at(row, _SCALE))
    scale = _fitted(row, stored, tl.load(state + owner))
    place = floats_at(row, _WEIGHT) + first
    x = read(place, left, 0.0, BLOCK)
    if KAHAN:
        error = _error_of(row, first, left, BLOCK)
        rest = _resting(row, x, stored, PREFIX)
        x = tl.where(rest, x, x + error)
    inside = divided(x, scale)
    if STOCHASTIC:
        rounded = _stochastic(row, inside, tl.load(keys + owner), first // BLOCK, PREFIX, BLOCK)
    else:
        rounded = _nearest(row, inside, PREFIX)
    settled = rounded * scale
    settled = tl.where(settled == 0, 0.0, settled)
    settled = tl.where(inside == inside, settled, inside)
    settled = tl.where(_size(x) < _INF, settled, x)
    write(place, left, settled, BLOCK)
    tl.atomic_max(state + rows + owner, tl.max(_size(settled), 0), sem="relaxed")
    if KAHAN:
        lost = x - settled
        kept = tl.load(row + _ERROR).to(tl.pointer_type(tl.int16)) + first
        left = tl.where(tl.load(state + 2 * rows + owner) == 0, 0, left)  # all are at rest
        write(kept, left, _as_bfloat16(tl.where(rest, error + lost, lost)), BLOCK)


@triton.jit  # type: ignore[untyped-decorator]
def _finish(table, state, skipped, rows, SKIPPING: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write the scale of one weight, as the settled values ask for it, and count its change."""
    owner = tl.program_id(0)
    row = table + owner * _WIDTH
    place = floats_at(row, _SCALE)
    stored = tl.load(place)
    scale = _fitted(row, stored, tl.load(state + owner))
    scale = _fitted(row, scale, tl.load(state + rows + owner))
    if SKIPPING:
        scale = tl.where(tl.load(skipped) != 0, stored, scale)
    changes = tl.load(row + _CHANGES).to(tl.pointer_type(tl.int32))
    tl.store(changes, tl.load(changes) + (scale != stored).to(tl.int32))
    tl.store(place, scale)


@triton.jit
def _in_force(table, state, out):  # type: ignore[no-untyped-def]
    """The scale that the rule gives one weight for what it reaches."""
    owner = tl.program_id(0)
    row = table + owner * _WIDTH
    stored = tl.load(floats_at(row, _SCALE))
    tl.store(out + owner, _fitted(row, stored, tl.load(state + owner)))


def settle(
    rows: Sequence[Row],
    keys: Sequence[int],
    skipped: Tensor | None,
    device: torch.device,
    *,
    kahan: bool,
    prefix: bool,
) -> None:
    """Settle the weights of a table, all with compensation or none, and all on grids of one kind.

    keys:
        of the draws, one for each row; none to round to nearest.
    skipped:
        0-d float32 on the device; where it is not 0, nothing is changed.
    prefix:
        whether the grids are prefixes of float32.
    """
    table, blocks = table_of(rows, COUNT, device)
    count, chunks = len(rows), blocks.numel()
    state = torch.zeros(3 * count, dtype=torch.int32, device=device)
    drawn = numbers([as_int64(key) for key in keys], device) if keys else table
    flag = state if skipped is None else skipped
    how = {"KAHAN": kahan, "PREFIX": prefix, "BLOCK": BLOCK, "enable_fp_fusion": False}
    skipping = skipped is not None
    with torch.cuda.device_of(table):  # type: ignore[no-untyped-call]  # Triton launches where CUDA is at the moment
        _look[(chunks,)](table, blocks, state, count, **how)
        _round[(chunks,)](
            table,
            blocks,
            state,
            drawn,
            flag,
            count,
            SKIPPING=skipping,
            STOCHASTIC=bool(keys),
            **how,
        )
        _finish[(count,)](table, state, flag, count, SKIPPING=skipping, enable_fp_fusion=False)


def scales(rows: Sequence[Row], device: torch.device) -> Tensor:
    """``ScaleFit`` for each weight of a table as it is: its stored scale, unless that does not fit."""
    table, blocks = table_of(rows, COUNT, device)
    count = len(rows)
    state = torch.zeros(count, dtype=torch.int32, device=device)
    out = torch.empty(count, dtype=torch.float32, device=device)
    how: dict[str, Any] = {"KAHAN": False, "PREFIX": False, "enable_fp_fusion": False}
    with torch.cuda.device_of(table):  # type: ignore[no-untyped-call]
        _look[(blocks.numel(),)](table, blocks, state, count, BLOCK=BLOCK, **how)
        _in_force[(count,)](table, state, out, enable_fp_fusion=False)
    return out


def scale_in_force(weight: Tensor, stored: Tensor, row: Row) -> Tensor:
    """``ScaleFit`` for the weight of a row as it is: its stored scale, unless that does not fit."""
    fixed, *rule = row[RULE:]
    if fixed:
        return stored
    out = torch.empty_like(stored)
    with torch.cuda.device_of(stored):  # type: ignore[no-untyped-call]
        _fit[(1,)](amax(weight).view(torch.int32), stored, out, *rule)
    return out
