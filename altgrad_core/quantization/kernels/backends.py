"""Rounding by whatever is fastest where the tensor is: compiled for the CPU, or the reference anywhere.

Every backend gives the same bits as :mod:`.rounding`; see :mod:`~altgrad_core.interfaces.backend`. Compilers and
transforms meet the reference, whose operators they know. The kernels are called without torch's
dispatcher, which would take several times as long as they do on the weights of a small model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from altgrad_core.interfaces.backend import is_compiled
from altgrad_core.interfaces.draws import new_key
from altgrad_core.interfaces.grid import compute_dtype
from altgrad_core.quantization.kernels import rounding
from altgrad_core.quantization.kernels.numbers import GridNumbers

if TYPE_CHECKING:
    from altgrad_core.quantization.kernels.compiled import Kernels


def round_nearest(x: Tensor, numbers: GridNumbers) -> Tensor:
    """See :func:`.rounding.round_nearest`."""
    if (kernels := _compiled(x, numbers)) is None:
        return rounding.round_nearest(x, numbers)
    out = torch.empty(x.shape, dtype=torch.float32)
    kernels.nearest(_flat(x), out.view(-1).numpy())
    return out.to(x.dtype)


def round_stochastic(x: Tensor, numbers: GridNumbers, generator: torch.Generator) -> Tensor:
    """See :func:`.rounding.round_stochastic`."""
    if (kernels := _compiled(x, numbers)) is None:
        return rounding.round_stochastic(x, numbers, generator)
    out = torch.empty(x.shape, dtype=torch.float32)
    kernels.stochastic(_flat(x), out.view(-1).numpy(), new_key(generator))
    return out.to(x.dtype)


def _compiled(x: Tensor, numbers: GridNumbers) -> Kernels | None:
    """The compiled kernels, if they can do it."""
    if compute_dtype(x) != torch.float32 or not is_compiled(x):
        return None
    from altgrad_core.quantization.kernels import compiled  # numba may not be there

    return compiled.kernels(numbers)


def _flat(x: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = x.detach().float().contiguous().view(-1).numpy()
    return found
