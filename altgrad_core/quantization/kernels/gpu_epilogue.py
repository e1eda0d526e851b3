"""What follows a product of int8 on a GPU, in one launch: sums to float32, the scales, the bias, the dtype.

By torch's operators that is up to three passes, over float32 in between; the bits are the same.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048
_DTYPES = torch.float32, torch.bfloat16, torch.float16


@triton.jit  # type: ignore[untyped-decorator]
def _epilogue(  # type: ignore[no-untyped-def]
    sums, left, right, bias, out, count, columns, BIASED: tl.constexpr, BLOCK: tl.constexpr
):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    i = tl.arange(0, BLOCK)
    inside = start + i < count
    found = tl.load(sums + start + i, mask=inside).to(tl.float32) * (tl.load(left) * tl.load(right))
    if BIASED:
        column = ((start % columns).to(tl.int32) + i) % columns
        found += tl.load(bias + column, mask=inside).to(tl.float32)
    tl.store(out + start + i, found.to(out.dtype.element_ty), mask=inside)


def fits(scales: tuple[Tensor, Tensor], bias: Tensor | None, dtype: torch.dtype) -> bool:
    """Whether the kernel takes these: scales 0-d float32, bias and result of no more bits."""
    plain = all(one.dtype is torch.float32 and one.dim() == 0 for one in scales)
    if bias is not None:
        plain &= bias.dtype in _DTYPES and bias.is_contiguous() and not bias.is_neg()
    return plain and dtype in _DTYPES


def epilogue(
    sums: Tensor, scales: tuple[Tensor, Tensor], bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """``(sums * (left * right) + bias).to(dtype)`` of int32 (m, n), contiguous; what :func:`fits`."""
    out = torch.empty_like(sums, dtype=dtype)
    left, right = (one.detach() for one in scales)
    with torch.cuda.device_of(sums):  # type: ignore[no-untyped-call]  # Triton launches where CUDA is at the moment
        _epilogue[(-(-sums.numel() // _BLOCK),)](
            sums,
            left,
            right,
            out if bias is None else bias.detach(),
            out,
            sums.numel(),
            sums.shape[1],
            BIASED=bias is not None,
            BLOCK=_BLOCK,
            enable_fp_fusion=False,
        )
    return out
