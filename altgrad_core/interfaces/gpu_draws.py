"""The draws of :mod:`.draws` in Triton, for tensors on a GPU: one launch, no wait."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]
def block_words(key, block, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Four tensors with the words of the ``BLOCK`` counters of a block, which is an int64."""
    counter = block * BLOCK + tl.arange(0, BLOCK)
    none = tl.zeros_like(counter).to(tl.uint32)
    low, high = (counter & 0xFFFFFFFF).to(tl.uint32), (counter >> 32).to(tl.uint32)
    return tl.philox(key, low, high, none, none)


@triton.jit  # type: ignore[untyped-decorator]
def block_draws(key, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The float32 numbers of the program's ``BLOCK`` elements."""
    return draws_of(key, tl.program_id(0).to(tl.int64), BLOCK)


@triton.jit  # type: ignore[untyped-decorator]
def draws_of(key, block, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The float32 numbers of the ``BLOCK`` elements of a block, which is an int64."""
    w0, w1, w2, w3 = block_words(key, block, BLOCK // 4)
    word = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
    return ((word >> 8) & 0xFFFFFF).to(tl.float32) * 5.9604644775390625e-08


@triton.jit  # type: ignore[untyped-decorator]
def double_draws(key, block, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Likewise of float64, of which a counter gives two."""
    w0, w1, w2, w3 = block_words(key, block, BLOCK // 2)
    first = ((w0 >> 5).to(tl.int64) << 26) + (w1 >> 6).to(tl.int64)
    second = ((w2 >> 5).to(tl.int64) << 26) + (w3 >> 6).to(tl.int64)
    return tl.interleave(first, second).to(tl.float64) * 1.1102230246251565e-16


@triton.jit  # type: ignore[untyped-decorator]
def _fill(out, count, key, DOUBLE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    if DOUBLE:  # noqa: SIM108
        draw = double_draws(key, tl.program_id(0).to(tl.int64), BLOCK)
    else:
        draw = block_draws(key, BLOCK)
    tl.store(out + i, draw, mask=i < count)


def fill(drawn: Tensor, key: int) -> None:
    """Write uniform numbers into ``drawn``, which is contiguous and float32 or float64."""
    grid = (max(1, -(-drawn.numel() // _BLOCK)),)
    double = drawn.dtype == torch.float64
    with torch.cuda.device_of(drawn):  # type: ignore[no-untyped-call]  # Triton launches where CUDA is at the moment
        _fill[grid](drawn, drawn.numel(), as_int64(key), DOUBLE=double, BLOCK=_BLOCK)


def as_int64(key: int) -> int:
    """The key with its bits as they are: Triton would take a larger number for another type."""
    return key - 2**64 if key >= 2**63 else key
