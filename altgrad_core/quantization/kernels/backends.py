"""Rounding by whatever is fastest where the tensor is: compiled for the CPU, or the reference anywhere.

Every backend gives the same bits as :mod:`.rounding`; see :mod:`~altgrad_core.interfaces.backend`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.backend import is_compiled
from altgrad_core.interfaces.draws import new_key
from altgrad_core.interfaces.grid import compute_dtype
from altgrad_core.quantization.kernels import rounding
from altgrad_core.quantization.kernels.numbers import GridNumbers


def round_nearest(x: Tensor, numbers: GridNumbers) -> Tensor:
    """See :func:`.rounding.round_nearest`."""
    if not _compiled(x, numbers):
        return rounding.round_nearest(x, numbers)
    return _nearest(x.detach().float(), *_plain(numbers)).to(x.dtype)


def round_stochastic(x: Tensor, numbers: GridNumbers, generator: torch.Generator) -> Tensor:
    """See :func:`.rounding.round_stochastic`."""
    if not (_compiled(x, numbers) and rounding.has_normal_steps(torch.float32, numbers)):
        return rounding.round_stochastic(x, numbers, generator)
    key = new_key(generator)
    signed = key - 2**64 if key >= 2**63 else key  # as an operator takes it
    return _stochastic(x.detach().float(), *_plain(numbers), signed).to(x.dtype)


def _compiled(x: Tensor, numbers: GridNumbers) -> bool:
    if compute_dtype(x) != torch.float32 or not is_compiled(x):
        return False
    from altgrad_core.quantization.kernels import compiled

    return compiled.fits(numbers)


def _plain(numbers: GridNumbers) -> tuple[int, int, float, float | None]:
    return numbers.mantissa_bits, numbers.min_exponent, numbers.max_value, numbers.overflow


@torch.library.custom_op("altgrad::round_nearest", mutates_args=(), device_types="cpu")
def _nearest(
    x: Tensor, mantissa_bits: int, min_exponent: int, max_value: float, overflow: float | None
) -> Tensor:
    from altgrad_core.quantization.kernels import compiled

    numbers = GridNumbers(mantissa_bits, min_exponent, max_value, overflow)
    out = torch.empty(x.shape, dtype=x.dtype)
    compiled.nearest(_flat(x), out.view(-1).numpy(), numbers)
    return out


@torch.library.custom_op("altgrad::round_stochastic", mutates_args=(), device_types="cpu")
def _stochastic(
    x: Tensor,
    mantissa_bits: int,
    min_exponent: int,
    max_value: float,
    overflow: float | None,
    key: int,
) -> Tensor:
    from altgrad_core.quantization.kernels import compiled

    numbers = GridNumbers(mantissa_bits, min_exponent, max_value, overflow)
    out = torch.empty(x.shape, dtype=x.dtype)
    compiled.stochastic(_flat(x), out.view(-1).numpy(), numbers, key % 2**64)
    return out


def _flat(x: Tensor) -> Any:
    return x.contiguous().view(-1).numpy()


@_nearest.register_fake
def _(x: Tensor, *numbers: object) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@_stochastic.register_fake
def _(x: Tensor, *numbers: object) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)
