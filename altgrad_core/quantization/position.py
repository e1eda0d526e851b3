"""Positions on the ladder, packed: where each weight stood at the start, in 2 bytes at 8 bits.

A position is a real number of rungs (``latent_position``), kept in fixed point with 8 fractional bits.
An int16 then reaches to ±128 rungs, which holds every symmetric 8-bit format; a longer ladder, be
it a lopsided table of 8 bits or a wider format, takes an int32. float32's rungs fill an int32, and
its latent weights are grid values themselves, so there is no fraction to keep.
"""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format

_LAYOUTS = ((torch.int16, 256.0), (torch.int32, 256.0), (torch.int32, 1.0))
"""Integer types with the units that they hold per rung, smallest first."""


def _layout(fmt: Format) -> tuple[torch.dtype, float]:
    """The first layout that holds the rungs of ``fmt``, asked for on the CPU, and half a rung beyond."""
    ends = fmt.to_rung(torch.tensor([-torch.inf, torch.inf]))
    longest = max(abs(rung) for rung in ends.tolist())
    return next(
        (dtype, units)
        for dtype, units in _LAYOUTS
        if units == 1.0 or (longest + 0.5) * units <= torch.iinfo(dtype).max
    )


def pack(position: Tensor, fmt: Format) -> Tensor:
    """``position`` as integers, to 1/512 of a rung; what lies beyond their range is clipped."""
    dtype, units = _layout(fmt)
    limits = torch.iinfo(dtype)
    # in float64, since float32 has no 2^31 - 1; a NaN has no position, and shows later by itself
    scaled = (position.double() * units).round_().nan_to_num_(0.0)
    return scaled.clamp_(limits.min, limits.max).to(dtype)


def unpack(packed: Tensor, fmt: Format) -> Tensor:
    """The positions of :func:`pack`: float64 above 16 bits, else float32."""
    return packed.to(torch.float64 if fmt.bits > 16 else torch.float32) / _layout(fmt)[1]
