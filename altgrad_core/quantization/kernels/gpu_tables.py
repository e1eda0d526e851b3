"""What Triton kernels share that work on a table of tensors: a row of int64 for each, a program for each block.

A launch then serves all weights of a model. Addresses are read from the table, which is put on the device without a
wait, once for as long as the tensors stay where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Elements of a block."""


@triton.jit  # type: ignore[untyped-decorator]
def floats_at(row, COLUMN: tl.constexpr):  # type: ignore[no-untyped-def]
    """The address of float32 that a column holds."""
    return tl.load(row + COLUMN).to(tl.pointer_type(tl.float32))


@triton.jit  # type: ignore[untyped-decorator]
def read(start, left, FILL: tl.constexpr, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """A block of a tensor of which ``left`` elements are left; a whole one takes no mask, and so wide loads."""
    i = tl.arange(0, SIZE)
    at = tl.multiple_of(start + i, 16)
    if left >= SIZE:  # noqa: SIM108
        x = tl.load(at)
    else:
        x = tl.load(at, mask=i < left, other=FILL)
    return x


@triton.jit  # type: ignore[untyped-decorator]
def write(start, left, x, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write a block; of the last one what there is."""
    i = tl.arange(0, SIZE)
    at = tl.multiple_of(start + i, 16)
    if left >= SIZE:
        tl.store(at, x)
    else:
        tl.store(at, x, mask=i < left)


def blocks_of(count: int) -> int:
    """How many blocks a tensor of ``count`` elements has."""
    return -(-count // BLOCK)


@lru_cache(maxsize=16)
def owners(counts: tuple[int, ...], device: torch.device) -> Tensor:
    """For each block the row of the tensor that it is of, on the device."""
    blocks = torch.tensor([blocks_of(count) for count in counts], device="cpu")
    index = torch.arange(len(counts), dtype=torch.int32, device="cpu")
    return on_device(index.repeat_interleave(blocks), device)


def numbers(values: Sequence[int], device: torch.device) -> Tensor:
    """int64 on the device."""
    return on_device(torch.tensor(values, dtype=torch.int64, device="cpu"), device)


def on_device(made: Tensor, device: torch.device) -> Tensor:
    """Copied there without a wait."""
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made
