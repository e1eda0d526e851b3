"""Positions on the ladder, packed: where each weight stood at the start, in 2 bytes at 8 bits.

A position is a real number of rungs (``latent_position``). Rungs of an 8-bit format lie within
±127, so an int16 holds them with 8 fractional bits; 16-bit formats take an int32. float32's rungs
fill an int32, and its latent weights are grid values themselves, so there is no fraction to keep.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _layout(bits: int) -> tuple[torch.dtype, float]:
    """The integer type for a format of that width, and the units per rung."""
    if bits <= 8:
        return torch.int16, 256.0
    return (torch.int32, 256.0) if bits <= 16 else (torch.int32, 1.0)


def pack(position: Tensor, bits: int) -> Tensor:
    """``position`` as integers, to 1/256 of a rung; what lies beyond their range is clipped."""
    dtype, units = _layout(bits)
    limits = torch.iinfo(dtype)
    # in float64, since float32 has no 2^31 - 1; a NaN has no position, and shows later by itself
    scaled = (position.double() * units).round_().nan_to_num_(0.0)
    return scaled.clamp_(limits.min, limits.max).to(dtype)


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The positions of :func:`pack`: float64 above 16 bits, else float32."""
    return packed.to(torch.float64 if bits > 16 else torch.float32) / _layout(bits)[1]
