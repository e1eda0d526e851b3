"""Root mean squares of whole tensors, e.g. to normalise the stiffness, or to level it.

Each tensor is divided by its largest element first: squares then cannot underflow, and what is
found for a constant tensor is exact, as long as float32 can count its elements (2^24).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TINY = 2.0**-126


def relative_to_largest(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` in units of its largest magnitude, and that, 0-d; zeros stay zeros."""
    largest = _largest(x.abs())
    return x / torch.where(largest > 0, largest, 1.0), largest


def root_mean_square(relative: Tensor, largest: Tensor) -> Tensor:
    """Of all elements of what :func:`relative_to_largest` gave; 0-d."""
    return relative.square().mean().sqrt() * largest


def normalize_rms_(tensors: list[Tensor]) -> None:
    """Divide each tensor by its root mean square, in place.

    A constant tensor becomes exactly 1, so that on a uniform grid S changes nothing at all.
    """
    _divide_by_largest_(tensors)
    torch._foreach_div_(tensors, _root_mean_squares(tensors))


def level_(tensors: list[Tensor]) -> None:
    """Replace all elements of each tensor by their root mean square, in place.

    A constant tensor stays what it is, bit for bit.
    """
    largest = _divide_by_largest_(tensors)
    sizes = _root_mean_squares(tensors)
    torch._foreach_mul_(sizes, largest)
    for tensor, size in zip(tensors, sizes, strict=True):
        tensor.copy_(size)


def _divide_by_largest_(tensors: list[Tensor]) -> list[Tensor]:
    """Divide each tensor by its largest element, in place; these elements, 0-d."""
    largest = [_largest(t).clamp_min_(_TINY) for t in tensors]
    torch._foreach_div_(tensors, largest)
    return largest


def _largest(x: Tensor) -> Tensor:
    """The largest element, 0-d; of a tensor without elements, 0."""
    return x.amax() if x.numel() else x.new_zeros(())


def _root_mean_squares(tensors: list[Tensor]) -> list[Tensor]:
    sizes = list(torch._foreach_norm(tensors))
    torch._foreach_div_(sizes, [math.sqrt(t.numel()) for t in tensors])
    return sizes
