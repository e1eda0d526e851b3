"""What is done around the rounding of a weight that lives on its grid, compiled for one CPU core.

Each takes one pass and gives the bits of torch's operators, on tensors that ``backends.plain_on_cpu`` lets through.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from altgrad_core.interfaces.compiling import flat, inlined, kernel

_SIZE = np.int32(0x7FFFFFFF)
_ARRAY = "float32[::1]"
_Floats = NDArray[np.float32]


def amax(x: Tensor) -> Tensor:
    """``x.abs().amax()``, 0-d; ``x`` has elements."""
    found = x.detach().new_empty(1)
    _amax(flat(x), found.numpy())
    return found[0]


def divided(x: Tensor, scale: Tensor, ends: tuple[float, float]) -> Tensor:
    """``(x / scale).clamp(*ends)``."""
    out = torch.empty_like(x)
    _divided(flat(x), flat(scale), *map(np.float32, ends), flat(out))
    return out


def settled(rounded: Tensor, scale: Tensor, target: Tensor) -> Tensor:
    """``rounded · scale`` with one zero, or ``target`` where that is not finite; in ``rounded``."""
    _settled(flat(rounded), flat(scale), flat(target))
    return rounded


@inlined
def _magnitude(value: np.float32) -> np.int32:
    return np.int32(np.float32(value).view(np.int32) & _SIZE)


@kernel(f"void({_ARRAY}, {_ARRAY})")
def _amax(x: _Floats, found: _Floats) -> None:
    top = np.int32(0)  # of the bits, among which those of NaN are the largest
    for i in range(x.shape[0]):
        size = _magnitude(x[i])
        top = size if size > top else top
    found[0] = np.int32(top).view(np.float32)


@kernel(f"void({_ARRAY}, {_ARRAY}, float32, float32, {_ARRAY})")
def _divided(x: _Floats, scale: _Floats, low: np.float32, high: np.float32, out: _Floats) -> None:
    unit = scale[0]
    for i in range(x.shape[0]):
        v = x[i] / unit
        v = low if v < low else v
        out[i] = high if v > high else v


@kernel(f"void({_ARRAY}, {_ARRAY}, {_ARRAY})")
def _settled(rounded: _Floats, scale: _Floats, target: _Floats) -> None:
    unit, infinite = scale[0], np.int32(0x7F800000)
    for i in range(rounded.shape[0]):
        value = rounded[i] * unit + np.float32(0.0)
        rounded[i] = value if _magnitude(target[i]) < infinite else target[i]
