"""What surrounds Adam in the step of ``manifold_adamw``, in Triton: four launches for all weights, without a wait.

Adam itself stays torch's fused kernel, so that where S is 1 everywhere the step is AdamW's, bit for bit. S is never
in memory: it follows from the weight's exponent, the scale and two numbers of each tensor, its largest gap and the
root mean square of the gaps in units of that. The squares are added up in float64, each block's in a fixed tree and
the blocks' in their order, so the sum is the same in every run, and exact for a uniform grid; ``torch.norm``, which
adds in float32, may differ from it in the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from altgrad_core.interfaces.gpu_scaling import divided
from altgrad_core.quantization.kernels.gpu_tables import (
    BLOCK,
    block_of,
    floats_at,
    read,
    table_of,
    write,
)
from altgrad_plugins.optimizers.adamw import AdamState, adam_update
from altgrad_plugins.optimizers.settings import ManifoldAdamWSettings

Row = tuple[int, ...]
"""Addresses of weight, gradient and scale (0 for none); number of elements; fields of lowest and highest binade, M."""
_WEIGHT, _GRAD, _SCALE, _COUNT, _LOWEST, _HIGHEST, _MANTISSA = (tl.constexpr(i) for i in range(7))
_PLACE, _WIDTH = tl.constexpr(7), tl.constexpr(9)
COUNT = 3


@triton.jit
def _inverse_power(top):  # type: ignore[no-untyped-def]
    """``2^-k`` for the bits of a float32 from ``2^k`` to ``2^(k+1)``."""
    field = tl.minimum(tl.maximum(top >> 23, 1), 253)
    return ((254 - field) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _gaps(row, w):  # type: ignore[no-untyped-def]
    """``WeightGeometry.ulp`` of each weight; NaN for NaN."""
    lowest, highest = tl.load(row + _LOWEST).to(tl.int32), tl.load(row + _HIGHEST).to(tl.int32)
    m = tl.load(row + _MANTISSA).to(tl.int32)
    place = tl.load(row + _SCALE)
    scale = tl.load(place.to(tl.pointer_type(tl.float32)), mask=place != 0, other=1.0)
    x = divided(w, scale)
    field = (x.to(tl.int32, bitcast=True) >> 23) & 0xFF
    field = tl.minimum(tl.maximum(field, lowest), highest) - m
    # a power of two that is subnormal is half of 2^-126, and so on
    whole = (tl.maximum(field, 1) << 23).to(tl.float32, bitcast=True)
    gap = tl.where(
        field > 0, whole, whole * (tl.maximum(126 + field, 1) << 23).to(tl.float32, bitcast=True)
    )
    gap = gap * scale
    gap = tl.where((place != 0) & (gap < 1.1754943508222875e-38), 1.1754943508222875e-38, gap)
    return tl.where(x == x, gap, x)


@triton.jit  # type: ignore[untyped-decorator]
def _stiffness(row, w, largest, size, limit, RMS: tl.constexpr):  # type: ignore[no-untyped-def]
    gap = _gaps(row, w)
    if RMS:
        gap = divided(gap, largest)
        gap = tl.div_rn(gap, tl.zeros_like(gap) + size)
    return tl.where(gap > limit, limit, gap)


@triton.jit  # type: ignore[untyped-decorator]
def _survey(table, owners, tops, sums, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of each block: the bits of the largest gap, and the sum of the squares in units of the power of two below it."""
    pid = tl.program_id(0)
    _, row, first, left = block_of(table, owners, _WIDTH, _COUNT, BLOCK)
    gap = _gaps(row, read(floats_at(row, _WEIGHT) + first, left, 0.0, BLOCK))
    gap = tl.where(tl.arange(0, BLOCK) < left, gap, 0.0)
    top = tl.max(gap.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 0)
    ratio = (gap * _inverse_power(top)).to(tl.float64)
    tl.store(tops + pid, top)
    tl.store(sums + pid, tl.sum(ratio * ratio, 0))


@triton.jit  # type: ignore[untyped-decorator]
def _level(table, tops, sums, largest, sizes, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of each tensor: the largest gap, and the root mean square in units of that."""
    owner = tl.program_id(0)
    row = table + owner * _WIDTH
    count = tl.load(row + _COUNT)
    first, blocks = tl.load(row + (_WIDTH - 1)), (count + BLOCK - 1) // BLOCK
    i = tl.arange(0, 256)
    top = tl.zeros([256], tl.int32)
    for start in range(0, blocks, 256):
        top = tl.maximum(top, tl.load(tops + first + start + i, mask=start + i < blocks, other=0))
    most = tl.max(top, 0)
    unit = tl.maximum(most, 0x00800000).to(tl.float32, bitcast=True)
    inverse = _inverse_power(unit.to(tl.int32, bitcast=True))
    total = tl.zeros([256], tl.float64)
    for start in range(0, blocks, 256):
        inside = start + i < blocks
        of_block = tl.load(tops + first + start + i, mask=inside, other=0)
        ratio = inverse.to(tl.float64) / _inverse_power(of_block).to(tl.float64)
        total += ratio * ratio * tl.load(sums + first + start + i, mask=inside, other=0.0)
    relative = (unit * inverse).to(tl.float64)
    mean = tl.sum(total, 0) / count.to(tl.float64)
    tl.store(largest + owner, unit)
    tl.store(sizes + owner, (tl.sqrt(mean) / relative).to(tl.float32))


@triton.jit  # type: ignore[untyped-decorator]
def _before(  # type: ignore[no-untyped-def]
    table, owners, largest, sizes, out, limit, RMS: tl.constexpr, BLOCK: tl.constexpr
):
    """``g · S``, into ``out``."""
    owner, row, first, left = block_of(table, owners, _WIDTH, _COUNT, BLOCK)
    w = read(floats_at(row, _WEIGHT) + first, left, 0.0, BLOCK)
    s = _stiffness(row, w, tl.load(largest + owner), tl.load(sizes + owner), limit, RMS)
    g = read(floats_at(row, _GRAD) + first, left, 0.0, BLOCK)
    write(out + tl.load(row + _PLACE) + first, left, g * s, BLOCK)


@triton.jit  # type: ignore[untyped-decorator]
def _after(  # type: ignore[no-untyped-def]
    table, owners, largest, sizes, steps, limit, decay, RMS: tl.constexpr, BLOCK: tl.constexpr
):
    """``w ← decay · w + S · step``."""
    owner, row, first, left = block_of(table, owners, _WIDTH, _COUNT, BLOCK)
    place = floats_at(row, _WEIGHT) + first
    w = read(place, left, 0.0, BLOCK)
    s = _stiffness(row, w, tl.load(largest + owner), tl.load(sizes + owner), limit, RMS)
    step = read(steps + tl.load(row + _PLACE) + first, left, 0.0, BLOCK)
    write(place, left, w * decay + s * step, BLOCK)


def update(
    group: Mapping[str, Any], settings: ManifoldAdamWSettings, state: AdamState, rows: Sequence[Row]
) -> None:
    """One step of all parameters of ``state``, of which ``rows`` says where they lie and on what grid."""
    device = state.params[0].device
    places = accumulate((_padded(row[COUNT]) for row in rows), initial=0)
    placed = [(*row, place) for row, place in zip(rows, places, strict=False)]
    table, blocks = table_of(placed, COUNT, device)
    count, chunks, rms = len(rows), blocks.numel(), settings.normalize == "rms"
    limit = math.inf if settings.max_stiffness is None else settings.max_stiffness
    how: dict[str, Any] = {"BLOCK": BLOCK, "enable_fp_fusion": False}
    levels = torch.empty(2, count, dtype=torch.float32, device=device)
    grads = state.grads
    with torch.cuda.device_of(table):  # type: ignore[no-untyped-call]  # Triton launches where CUDA is at the moment
        if rms:
            tops = torch.empty(chunks, dtype=torch.int32, device=device)
            sums = torch.empty(chunks, dtype=torch.float64, device=device)
            _survey[(chunks,)](table, blocks, tops, sums, **how)
            _level[(count,)](table, tops, sums, levels[0], levels[1], **how)
        common = blocks, levels[0], levels[1]
        if settings.site in ("pre", "both"):
            flat = torch.empty(_space(rows), dtype=torch.float32, device=device)
            _before[(chunks,)](table, *common, flat, limit, RMS=rms, **how)
            grads = _views(flat, state.params)
        if settings.site == "pre":
            adam_update(group, state, grads=grads)
            return
        flat = torch.zeros(_space(rows), dtype=torch.float32, device=device)
        adam_update(group, state, targets=_views(flat, state.params), grads=grads, weight_decay=0.0)
        decay = 1 - group["lr"] * group["weight_decay"]
        _after[(chunks,)](table, *common, flat, limit, decay, RMS=rms, **how)
    torch.autograd.graph.increment_version(state.params)


def _padded(count: int) -> int:
    """Elements between the starts of tensors, of which each is aligned."""
    return -(-count // 64) * 64


def _space(rows: Sequence[Row]) -> int:
    return sum(_padded(row[COUNT]) for row in rows)


def _views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(flat, [_padded(one.numel()) for one in like])
    return [part[: one.numel()].view(one.shape) for part, one in zip(parts, like, strict=True)]
