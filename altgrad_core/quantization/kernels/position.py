"""Positions on the ladder, packed: where each weight stood at the start, in 2 bytes at 8 bits.

A position is a real number of rungs (``latent_position``), kept in fixed point with 8 fractional bits.
An int16 then reaches to ±128 rungs, which holds every symmetric 8-bit format; a longer ladder, be
it a lopsided table of 8 bits or a wider format, takes an int32. float32's rungs fill an int32, and
its latent weights are grid values themselves, so there, beyond 16 bits, is no fraction to keep.
"""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format

_UNITS = 256.0
"""Units per rung, of formats of up to 16 bits."""


def _units(fmt: Format) -> float:
    return 1.0 if fmt.bits > 16 else _UNITS


def _dtype(fmt: Format) -> torch.dtype:
    """The smaller integer type that holds the rungs of ``fmt``, asked for on the CPU, and half a rung more."""
    ends = fmt.to_rung(torch.tensor([-torch.inf, torch.inf], dtype=torch.float32, device="cpu"))
    longest = max(abs(rung) for rung in ends.tolist())
    return torch.int16 if (longest + 0.5) * _UNITS <= torch.iinfo(torch.int16).max else torch.int32


def pack(position: Tensor, fmt: Format) -> Tensor:
    """``position`` as integers, to 1/512 of a rung; what lies beyond their range is clipped."""
    dtype = _dtype(fmt)
    limits = torch.iinfo(dtype)
    # in float64, since float32 has no 2^31 - 1; a NaN has no position, and shows later by itself
    scaled = (position.double() * _units(fmt)).round_().nan_to_num_(0.0)
    return scaled.clamp_(limits.min, limits.max).to(dtype)


def unpack(packed: Tensor, fmt: Format) -> Tensor:
    """The positions of :func:`pack`: float64 above 16 bits, else float32."""
    return packed.to(torch.float64 if fmt.bits > 16 else torch.float32) / _units(fmt)
