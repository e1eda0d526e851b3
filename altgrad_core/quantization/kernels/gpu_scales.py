"""The largest magnitude of a tensor on a GPU, and the power of two that it asks for as a scale: no wait.

The bits are those of torch's operators in :mod:`~altgrad_core.quantization.scaling`, in fewer launches.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096
_CELLS, _APART = 1024, 32
"""How many pairs of numbers there are for launches to add up in, and how far apart: each has a cache line, so that
Triton, which compiles anew for other alignments, sees one."""


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
def _amax(  # type: ignore[no-untyped-def]
    source,
    cell,
    out,
    count,
    headroom,
    smallest,
    highest,
    ceiling,
    SCALED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The largest magnitude, or the scale for it: the last program to arrive writes it, and leaves ``cell`` at 0."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(source + i, mask=i < count, other=0.0).to(tl.float32)
    size = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    tl.atomic_max(cell, tl.max(size, 0))  # of bits, among which those of NaN are the largest
    if tl.atomic_add(cell + 1, 1) == tl.num_programs(0) - 1:
        found = tl.atomic_xchg(cell, 0).to(tl.float32, bitcast=True)
        tl.atomic_xchg(cell + 1, 0)
        if SCALED:
            found = scale_of(found, headroom, smallest, highest, ceiling)
        tl.store(out, found)


@triton.jit  # type: ignore[untyped-decorator]
def _scales(source, out, count, headroom, smallest, highest, ceiling, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    amax = tl.load(source + i, mask=i < count, other=0.0)
    tl.store(out + i, scale_of(amax, headroom, smallest, highest, ceiling), mask=i < count)


def amax(x: Tensor) -> Tensor:
    """``x.abs().amax().float()``, 0-d, and 0 for no elements; ``x`` is contiguous, of up to 32 bits."""
    return _reduced(x, 1.0, (0.0, 0.0, 0), scaled=False)


def scale(x: Tensor, headroom: float, limits: tuple[float, float, int]) -> Tensor:
    """:func:`scales` of :func:`amax` of ``x``, in its launch."""
    return _reduced(x, headroom, limits, scaled=True)


def _reduced(
    x: Tensor, headroom: float, limits: tuple[float, float, int], *, scaled: bool
) -> Tensor:
    out = torch.empty((), dtype=torch.float32, device=x.device)
    blocks = max(1, -(-x.numel() // _BLOCK))
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # Triton launches where CUDA is at the moment
        _amax[(blocks,)](
            x.detach(),
            _cell(x.device),
            out,
            x.numel(),
            headroom,
            *limits,
            SCALED=scaled,
            BLOCK=_BLOCK,
        )
    return out


_rings: dict[torch.device, Iterator[Tensor]] = {}


def _cell(device: torch.device) -> Tensor:
    """Two int32 at 0, where one launch at a time keeps what its programs have found and how many have.

    In turn from a ring, since launches on several streams overlap. Its zeros are written in the stream of the first
    launch, which others are taken to wait for.
    """
    if device not in _rings:
        cells = torch.zeros(_CELLS, _APART, dtype=torch.int32, device=device)
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return cells[0]  # its zeros are part of the graph, and were not written yet
        _rings[device] = cycle(cells.unbind())
    return next(_rings[device])


def scales(amax: Tensor, headroom: float, limits: tuple[float, float, int]) -> Tensor:
    """The power of two for each of ``amax`` (float32, contiguous); ``limits`` as of ``scaling.power_of_two_limits``."""
    out, block = torch.empty_like(amax), 128
    with torch.cuda.device_of(amax):  # type: ignore[no-untyped-call]
        grid = (max(1, -(-amax.numel() // block)),)
        _scales[grid](amax, out, amax.numel(), headroom, *limits, BLOCK=block)
    return out
