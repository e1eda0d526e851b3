"""The largest magnitude of a tensor on a GPU, and the power of two that it asks for as a scale: no wait.

The bits are those of torch's operators in :mod:`~altgrad_core.quantization.scaling`, in fewer launches.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096


@triton.jit  # type: ignore[untyped-decorator]
def _amax(source, found, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(source + i, mask=i < count, other=0.0).to(tl.float32)
    size = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    tl.atomic_max(found, tl.max(size, 0))  # of bits, among which those of NaN are the largest


@triton.jit
def scale_of(amax, headroom, smallest, highest, ceiling):  # type: ignore[no-untyped-def]
    """``scaling.scale_for`` of a roomy ``amax``, to a power of two."""
    finite = amax < float("inf")  # false for NaN
    roomy = tl.where(finite, tl.minimum(amax * headroom, 3.4028234663852886e38), amax)
    inside = tl.minimum(tl.maximum(roomy, smallest), highest)
    pattern = (inside.to(tl.int32, bitcast=True) + ceiling) & -8388608
    sound = (roomy > 0) & finite
    return tl.where(sound, pattern.to(tl.float32, bitcast=True), roomy + 1)


@triton.jit  # type: ignore[untyped-decorator]
def _scales(source, out, count, headroom, smallest, highest, ceiling, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    amax = tl.load(source + i, mask=i < count, other=0.0)
    tl.store(out + i, scale_of(amax, headroom, smallest, highest, ceiling), mask=i < count)


def amax(x: Tensor) -> Tensor:
    """``x.abs().amax().float()``, 0-d; ``x`` is contiguous, of up to 32 bits, and has elements."""
    found = torch.zeros((), dtype=torch.int32, device=x.device)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # Triton launches where CUDA is at the moment
        _amax[(-(-x.numel() // _BLOCK),)](x.detach(), found, x.numel(), BLOCK=_BLOCK)
    return found.view(torch.float32)


def scales(amax: Tensor, headroom: float, limits: tuple[float, float, int]) -> Tensor:
    """The power of two for each of ``amax`` (float32, contiguous); ``limits`` as of ``scaling.power_of_two_limits``."""
    out, block = torch.empty_like(amax), 128
    with torch.cuda.device_of(amax):  # type: ignore[no-untyped-call]
        grid = (max(1, -(-amax.numel() // block)),)
        _scales[grid](amax, out, amax.numel(), headroom, *limits, BLOCK=block)
    return out
