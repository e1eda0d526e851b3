"""What is done around the rounding of a weight that lives on its grid, compiled for one CPU core.

Each takes one pass and gives the bits of torch's operators, on tensors that ``backends.plain_on_cpu`` lets through.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import carray
from torch import Tensor

from altgrad_core.interfaces.backend import written
from altgrad_core.interfaces.compiling import INF, float_of, floats_at, kernel, size_of


def amax(x: Tensor) -> Tensor:
    """``x.abs().amax()``, 0-d; ``x`` has elements."""
    found = x.detach().new_empty(())
    _amax(x.data_ptr(), x.numel(), found.data_ptr())
    return found


def divided(x: Tensor, scale: Tensor, ends: tuple[float, float]) -> Tensor:
    """``(x / scale).clamp(*ends)``."""
    out = torch.empty_like(x)
    _divided(x.data_ptr(), float(scale), *ends, out.data_ptr(), x.numel())
    return out


def settled(rounded: Tensor, scale: Tensor, target: Tensor, out: Tensor) -> Tensor:
    """``rounded · scale`` with one zero, or ``target`` where that is not finite; in ``out``, which may be either."""
    places = rounded.data_ptr(), float(scale), target.data_ptr(), out.data_ptr()
    _settled(*places, rounded.numel())
    written(out)
    return out


@kernel("void(int64, int64, int64)")
def _amax(x_at: int, count: int, found_at: int) -> None:
    x = carray(floats_at(x_at), count)
    top = np.int32(0)  # of the bits, among which those of NaN are the largest
    for i in range(count):
        size = size_of(x[i])
        top = size if size > top else top
    carray(floats_at(found_at), 1)[0] = float_of(top)


@kernel("void(int64, float32, float32, float32, int64, int64)")
def _divided(
    x_at: int, scale: np.float32, low: np.float32, high: np.float32, out_at: int, count: int
) -> None:
    x, out = carray(floats_at(x_at), count), carray(floats_at(out_at), count)
    for i in range(count):
        v = x[i] / scale
        v = low if v < low else v
        out[i] = high if v > high else v


@kernel("void(int64, float32, int64, int64, int64)")
def _settled(rounded_at: int, scale: np.float32, target_at: int, out_at: int, count: int) -> None:
    rounded, target = carray(floats_at(rounded_at), count), carray(floats_at(target_at), count)
    out = carray(floats_at(out_at), count)
    for i in range(count):
        value = rounded[i] * scale + np.float32(0.0)
        out[i] = value if size_of(target[i]) < INF else target[i]
