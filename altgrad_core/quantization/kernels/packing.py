"""Grid values in as few bits as their format has: one byte each for an 8-bit format.

Values are kept by rung, which needs no search for NaN and so never waits for the device. There are
at most 2^bits rungs, so they fit an unsigned integer of that many bits, counted from the lowest.
bfloat16 and float32 tensors are kept as such where that is the format itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format

_WORDS = ((8, torch.uint8), (16, torch.int16), (32, torch.int32))


def packed(values: Tensor, fmt: Format) -> Tensor:
    """Grid values (at scale 1) in the smallest integer type that holds the format; same shape.

    NaN has no rung and becomes the rung of zero.
    """
    if _is_bfloat16(fmt):
        return values.to(torch.bfloat16)
    if fmt.bits > 16:
        return values.to(torch.float32)
    return (fmt.to_rung(values) - _lowest(fmt)).to(_word(fmt))


def unpacked(codes: Tensor, fmt: Format) -> Tensor:
    """The values (float32) of :func:`packed`."""
    if codes.is_floating_point():
        return codes.to(torch.float32)
    rungs = codes.to(torch.int32)
    if codes.dtype == torch.int16:
        rungs = rungs & 0xFFFF
    return fmt.from_rung(rungs + _lowest(fmt))


def _is_bfloat16(fmt: Format) -> bool:
    """Whether bfloat16 is the natural container: 16 bits, and it holds every value."""
    return 8 < fmt.bits <= 16 and fmt.exact_in(torch.bfloat16)


def _word(fmt: Format) -> torch.dtype:
    return next(dtype for bits, dtype in _WORDS if fmt.bits <= bits)


def _lowest(fmt: Format) -> int:
    """The rung of the most negative value. Asked on the CPU."""
    return int(fmt.to_rung(torch.tensor([-torch.inf], dtype=torch.float32, device="cpu")))
