"""The counts of ``flips`` in Triton: one launch for all weights, without a wait, and no tensor of rungs.

Two weights are on one rung where they round to one value. What that needs beside the weight and its scale are the
numbers that a format states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from altgrad_core.interfaces.gpu_scaling import divided
from altgrad_core.quantization.kernels.gpu import clipped, nearest
from altgrad_core.quantization.kernels.gpu_tables import (
    BLOCK,
    block_of,
    floats_at,
    table_of,
)

_BEFORE, _AFTER, _INTENDED, _SCALE, _SCALE_AFTER = (tl.constexpr(i) for i in range(5))
_RESIDENT, _COUNT, _LIMIT, _LOWEST, _MANTISSA = (tl.constexpr(i) for i in range(5, 10))
_WIDTH = tl.constexpr(11)
COUNT = 6


@dataclass(frozen=True)
class Update:
    """One weight around its update: contiguous float32 of one shape, and scales of one element.

    grid:
        the bits of the largest value, the field of the lowest binade in its place, and the mantissa bits.
    """

    before: Tensor
    after: Tensor
    intended: Tensor
    scale: Tensor
    scale_after: Tensor
    resident: bool
    grid: tuple[int, int, int]

    def row(self) -> tuple[int, ...]:
        """For the kernel."""
        tensors = self.before, self.after, self.intended, self.scale, self.scale_after
        places = (tensor.data_ptr() for tensor in tensors)
        return *places, int(self.resident), self.before.numel(), *self.grid


@triton.jit  # type: ignore[untyped-decorator]
def _block(row, COLUMN: tl.constexpr, first, inside, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.load(floats_at(row, COLUMN) + first + tl.arange(0, BLOCK), mask=inside, other=0.0)


@triton.jit
def _on_grid(row, x, scale):  # type: ignore[no-untyped-def]
    limit = tl.load(row + _LIMIT).to(tl.int32).to(tl.float32, bitcast=True)
    lowest, mantissa = tl.load(row + _LOWEST).to(tl.int32), tl.load(row + _MANTISSA).to(tl.int32)
    return nearest(clipped(divided(x, scale), limit), lowest, mantissa << 23)


@triton.jit
def _broken(x):  # type: ignore[no-untyped-def]
    return (x.to(tl.int32, bitcast=True) & 0x7FFFFFFF) >= 0x7F800000


@triton.jit
def _add(place, mask):  # type: ignore[no-untyped-def]
    tl.atomic_add(place, tl.sum(mask.to(tl.int32), 0).to(tl.int64), sem="relaxed")


@triton.jit  # type: ignore[untyped-decorator]
def _flips(table, owners, found, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add up, for the weight of each block: flips, stalls, intended updates, and what is on no rung."""
    owner, row, first, left = block_of(table, owners, _WIDTH, _COUNT, BLOCK)
    inside = tl.arange(0, BLOCK) < left
    before = _block(row, _BEFORE, first, inside, BLOCK)
    after = _block(row, _AFTER, first, inside, BLOCK)
    intended = _block(row, _INTENDED, first, inside, BLOCK)
    scale, scale_after = tl.load(floats_at(row, _SCALE)), tl.load(floats_at(row, _SCALE_AFTER))
    rescaled = (scale != scale_after).to(tl.int32) * tl.load(row + _RESIDENT).to(tl.int32)
    same = (_on_grid(row, before, scale) == _on_grid(row, after, scale_after)) | (rescaled != 0)
    moved = (intended != before) & (rescaled == 0)
    place = found + owner * 4
    _add(place, inside & (same == 0))
    _add(place + 1, moved & same)
    _add(place + 2, moved)
    _add(place + 3, _broken(before) | _broken(intended))


def count(updates: Sequence[Update]) -> Tensor:
    """Flips, stalls and intended updates of each weight: float64 ``(n, 3)``, NaN where something is on no rung."""
    device = updates[0].before.device
    table, blocks = table_of([update.row() for update in updates], COUNT, device)
    found = torch.zeros(len(updates), 4, dtype=torch.int64, device=device)
    with torch.cuda.device_of(found):  # type: ignore[no-untyped-call]  # Triton launches where CUDA is at the moment
        _flips[(blocks.numel(),)](table, blocks, found, BLOCK=BLOCK, enable_fp_fusion=False)
    return found[:, :3].double().masked_fill_(found[:, 3:] > 0, torch.nan)
