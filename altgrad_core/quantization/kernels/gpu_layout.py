"""The transpose of a matrix of bytes on a GPU, in one launch that reads and writes whole lines.

torch's copy of such a matrix reads byte by byte, each from another line.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 128
"""Rows and columns of a tile: a row of one is a whole line of the cache, read and written."""


@triton.jit  # type: ignore[untyped-decorator]
def _turn(source, out, rows, columns, across, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    """One tile of ``out`` (rows, columns), the transpose of ``source``; ``across``: tiles beside each other."""
    i = tl.program_id(0) // across * TILE + tl.arange(0, TILE)
    j = tl.program_id(0) % across * TILE + tl.arange(0, TILE)
    inside = (j < columns)[:, None] & (i < rows)[None, :]
    tile = tl.load(source + (j.to(tl.int64) * rows)[:, None] + i[None, :], mask=inside)
    at = out + (i.to(tl.int64) * columns)[:, None] + j[None, :]
    tl.store(at, tl.trans(tile), mask=tl.trans(inside))


def by_rows(x: Tensor) -> Tensor:
    """``x.contiguous()`` of a matrix of bytes, not empty, whose transpose is contiguous."""
    rows, columns = x.shape
    out = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    across = -(-columns // _TILE)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # Triton launches where CUDA is at the moment
        _turn[(-(-rows // _TILE) * across,)](
            x.detach().t().view(torch.uint8),
            out.view(torch.uint8),
            rows,
            columns,
            across,
            TILE=_TILE,
            num_warps=8,
        )
    return out
