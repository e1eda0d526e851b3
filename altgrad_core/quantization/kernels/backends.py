"""Rounding by whatever is fastest where the tensor is: compiled for the CPU, or the reference anywhere.

Every backend gives the same bits as :mod:`.rounding`; see :mod:`~altgrad_core.interfaces.backend`. Compilers and
transforms meet the reference, whose operators they know. The kernels are called without torch's
dispatcher, which would take several times as long as they do on the weights of a small model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from altgrad_core.interfaces.backend import backend_for, written
from altgrad_core.interfaces.draws import new_key
from altgrad_core.interfaces.grid import compute_dtype
from altgrad_core.quantization.kernels import rounding
from altgrad_core.quantization.kernels.numbers import GridNumbers

if TYPE_CHECKING:
    from altgrad_core.quantization.kernels import gpu


def round_nearest(x: Tensor, numbers: GridNumbers, out: Tensor | None = None) -> Tensor:
    """See :func:`.rounding.round_nearest`; into ``out``, if there is one, which may be ``x``."""
    kernels = _kernels(x, numbers)
    if kernels is None:
        return _put(rounding.round_nearest(x, numbers), out)
    return _applied(kernels.nearest, x, out)


def round_stochastic(
    x: Tensor, numbers: GridNumbers, generator: torch.Generator, out: Tensor | None = None
) -> Tensor:
    """See :func:`.rounding.round_stochastic`; into ``out``, if there is one, which may be ``x``."""
    kernels = _kernels(x, numbers)
    if kernels is None:
        return _put(rounding.round_stochastic(x, numbers, generator), out)
    return _applied(kernels.stochastic, x, out, new_key(generator))


def round_scaled(
    x: Tensor,
    scale: Tensor | None,
    numbers: GridNumbers,
    dtype: torch.dtype,
    generator: torch.Generator | None,
    *,
    keep_inf: bool,
    step: float | None = None,
) -> Tensor | None:
    """``Format.round_scaled`` in one launch on a GPU; None where no kernel does that.

    generator:
        what stochastic rounding draws from; None rounds to nearest.
    step:
        a power of two: the grid values themselves, in such steps and without the scale.
    """
    if scale is not None and (scale.dim() or scale.dtype != torch.float32):
        return None
    if backend_for(x) != "triton" or compute_dtype(x) != torch.float32:
        return None
    if not (numbers.fits_float32 or numbers.is_float32_prefix):
        return None
    work = x.detach().contiguous().resolve_neg()
    out = torch.empty_like(work, dtype=dtype)
    key = None if generator is None else new_key(generator)
    _on_gpu(numbers).scaled(work, scale, out, key, keep_inf=keep_inf, step=step)
    return out


def plain_on_cpu(x: Tensor) -> bool:
    """Whether compiled kernels may read ``x`` as it is: float32 on the CPU, one element after the other."""
    if backend_for(x) != "numba" or x.dtype != torch.float32:
        return False
    return x.is_contiguous() and not x.is_neg() and x.numel() > 0


def _applied(kernel: Callable[..., None], x: Tensor, out: Tensor | None, *key: int) -> Tensor:
    """Kernels read and write contiguous float32: what is otherwise is copied."""
    work = x.detach().float().contiguous().resolve_neg()
    if out is not None and out.dtype == torch.float32 and out.is_contiguous() and not out.is_neg():
        kernel(work, out, *key)
        written(out)
        return out
    found = torch.empty_like(work)
    kernel(work, found, *key)
    return _put(found.to(x.dtype), out)


def _put(found: Tensor, out: Tensor | None) -> Tensor:
    return found if out is None else out.copy_(found)


class _Kernels(Protocol):
    """Kernels with the numbers of one grid. They read and write contiguous float32 tensors of one shape."""

    def nearest(self, x: Tensor, out: Tensor) -> None:
        """Write the nearest grid values of ``x`` into ``out``."""

    def stochastic(self, x: Tensor, out: Tensor, key: int) -> None:
        """Write one of the two grid values around each of ``x`` into ``out``, with the draws of a key."""


def _kernels(x: Tensor, numbers: GridNumbers) -> _Kernels | None:
    backend = backend_for(x)
    if backend == "eager" or compute_dtype(x) != torch.float32:
        return None
    return _made(backend, numbers)


@cache
def _made(backend: str, numbers: GridNumbers) -> _Kernels | None:
    """The kernels of a grid, or None where the reference has to do it."""
    if not (numbers.fits_float32 or numbers.is_float32_prefix):
        return None
    if backend == "numba":
        from altgrad_core.quantization.kernels import compiled

        return compiled.Kernels(numbers)
    return _on_gpu(numbers)


@cache
def _on_gpu(numbers: GridNumbers) -> gpu.Kernels:
    from altgrad_core.quantization.kernels import gpu

    return gpu.Kernels(numbers)
