"""The transpose of a matrix of bytes on a GPU, in one launch and at the bandwidth of a copy.

torch's copy reads such a matrix byte by byte from different lines, which takes several times as long.
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
    """``x.contiguous()`` of a matrix whose transpose is contiguous; its elements have one byte."""
    rows, columns = x.shape
    out = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    if x.numel():
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
