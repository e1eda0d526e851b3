"""Which resident weights one table of kernels can hold, and what it says of them.

That is the usual case: a float32 weight in one piece with one scale, and a format that rounds by the numbers that it
states, none of which moves when the scale is halved. All others settle one by one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.kernels.stated import stated_numbers

Row = tuple[int, ...]
"""Where weight, scale, count of changes and compensation lie (0 for none), the number of elements, the numbers of
:func:`grid_columns`, and the rule for the scale; in this order:"""
WEIGHT, SCALE, CHANGES, ERROR, COUNT, LIMIT, LOWEST, MANTISSA, KEEPS_INF = range(9)
FIXED, REACH, SMALLEST, ROOM, LOW, HIGH, CEILING = range(9, 16)
RULE, COLUMNS = FIXED, CEILING + 1
_ALIGNED = 16
_DTYPES = torch.float32, torch.float32, torch.int32, torch.bfloat16


def places(tensors: Sequence[Tensor]) -> tuple[int, ...] | None:
    """Where weight, scale, changes and, if it has any, compensation lie; None where kernels could not work."""
    weight, scale, changes, *error = tensors
    count, device = weight.numel(), weight.get_device()
    found = [_place(t, dtype, device) for t, dtype in zip(tensors, _DTYPES, strict=False)]
    if count == 0 or 0 in found or any(place % _ALIGNED for place in (found[0], *found[3:])):
        return None
    if scale.numel() != 1 or changes.numel() != 1 or (error and error[0].shape != weight.shape):
        return None
    return (*found, *[0] * (4 - len(found)), count)


def _place(tensor: Tensor, dtype: torch.dtype, device: int) -> int:
    """Its address; 0 for a tensor that is not plain, or not on the device of that number."""
    plain = tensor.dtype is dtype and tensor.get_device() == device and tensor.is_contiguous()
    if not plain or tensor.is_neg() or tensor.is_inference():
        return 0
    return tensor.data_ptr()


def flag(skipped: Tensor | None, weight: Tensor) -> bool:
    """Whether kernels for the weight may read it."""
    if skipped is None:
        return True
    return skipped.numel() == 1 and _place(skipped, torch.float32, weight.get_device()) != 0


def grid_columns(fmt: Format) -> tuple[int, ...] | None:
    """The numbers of the grid; None if its format does not round by them."""
    numbers = stated_numbers(fmt)
    if numbers is None or not (numbers.fits_float32 or numbers.is_float32_prefix):
        return None
    # without a scale, nothing is clipped to the ends before it is rounded
    if not (fmt.closed_under_doubling if fmt.scaled else numbers.overflow is None):
        return None
    lowest = numbers.min_exponent + 127
    keeps_inf = numbers.overflow is not None and math.isinf(numbers.overflow)
    return bits(numbers.max_value), lowest << 23, numbers.mantissa_bits, int(keeps_inf)


def is_prefix(row: Row) -> bool:
    """Whether the grid of the row is float32's with fewer mantissa bits, and not one that fits into float32."""
    return row[LOWEST] == 1 << 23 and row[MANTISSA] > 0


@cache
def unscaled(device: torch.device) -> Tensor:
    """The scale of weights that have none. Kernels write it as it is."""
    with torch.inference_mode(False):
        return torch.ones((), dtype=torch.float32, device=device)


def kept_by_bfloat16(fmt: Format | None) -> bool:
    """Whether a compensation in this format, if there is any, is what kernels can write: bfloat16."""
    if fmt is None:
        return True
    numbers = stated_numbers(fmt)
    if numbers is None or fmt.scaled or numbers.overflow is not None:
        return False
    return (
        numbers.is_float32_prefix and numbers.mantissa_bits == 7 and numbers.max_value == _LARGEST
    )


_LARGEST = float(torch.finfo(torch.bfloat16).max)


def bits(value: float) -> int:
    """Of a float32."""
    return int(struct.unpack("<i", struct.pack("<f", value))[0])
