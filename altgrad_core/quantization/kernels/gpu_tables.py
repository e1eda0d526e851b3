"""What Triton kernels share that work on a table of tensors: a row of int64 for each, a program for each block.

A launch then serves all weights of a model. Addresses are read from the table, which is put on the device without a
wait, once for as long as the tensors stay where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Elements of a block."""


@triton.jit  # type: ignore[untyped-decorator]
def block_of(table, owners, WIDTH: tl.constexpr, COUNT: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of the program's block: number and row of its tensor, where it begins there, and how many elements it has.

    A row has ``WIDTH`` columns: the last is its first block, and ``COUNT`` the one with the number of elements.
    """
    owner = tl.load(owners + tl.program_id(0))
    row = table + owner * WIDTH
    first = (tl.program_id(0) - tl.load(row + (WIDTH - 1))) * BLOCK
    left = tl.minimum(tl.load(row + COUNT) - first, BLOCK).to(tl.int32)
    return owner, row, first, left


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


def table_of(
    rows: Sequence[tuple[int, ...]], count: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The rows, each with its first block behind it, and for each block the row that it is of; on the device.

    ``count`` is the column with the number of elements. Made anew where a tensor has moved.
    """
    return _table(tuple(rows), count, device), _owners(tuple(row[count] for row in rows), device)


@lru_cache(maxsize=16)
def _table(rows: tuple[tuple[int, ...], ...], count: int, device: torch.device) -> Tensor:
    firsts = accumulate((blocks_of(row[count]) for row in rows), initial=0)
    flat = [n for row, first in zip(rows, firsts, strict=False) for n in (*row, first)]
    return numbers(flat, device)


@lru_cache(maxsize=16)
def _owners(counts: tuple[int, ...], device: torch.device) -> Tensor:
    blocks = torch.tensor([blocks_of(count) for count in counts], device="cpu")
    index = torch.arange(len(counts), dtype=torch.int32, device="cpu")
    return on_device(index.repeat_interleave(blocks), device)


def numbers(values: Sequence[int], device: torch.device) -> Tensor:
    """int64 on the device."""
    return on_device(torch.tensor(values, dtype=torch.int64, device="cpu"), device)


def on_device(made: Tensor, device: torch.device) -> Tensor:
    """Copied there without a wait."""
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made
