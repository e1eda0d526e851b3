"""What computes: kernels that numba or Triton compiles, or torch's operators one after the other.

The environment variable ``ALTGRAD_KERNELS`` is ``auto``, or ``eager`` for the latter alone.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from altgrad_core.errors import UserError

VARIABLE = "ALTGRAD_KERNELS"
_PLAIN = (Tensor, torch.nn.Parameter)


@cache
def cpu_backend() -> Literal["numba", "eager"]:
    """``numba``, or ``eager`` where it is not installed."""
    return "numba" if _wanted() and find_spec("numba") else "eager"


@cache
def gpu_backend() -> Literal["triton", "eager"]:
    """``triton``, which torch brings along where it is built for a GPU, or ``eager``."""
    return "triton" if _wanted() and find_spec("triton") else "eager"


def backend_for(x: Tensor) -> Literal["numba", "triton", "eager"]:
    """What may compute on ``x``: kernels take plain values in memory, and no compiler or transform sees them."""
    if type(x) not in _PLAIN or _recorded():
        return "eager"
    # device.type takes ten times as long, and this is asked of every weight in every step
    if x.is_cpu:
        return cpu_backend()
    return gpu_backend() if x.is_cuda else "eager"


def written(x: Tensor) -> None:
    """Say that a kernel has written to ``x``, as an operator in place would by itself."""
    if not x.is_inference():
        torch.autograd.graph.increment_version(x)


def _recorded() -> bool:
    """Whether a compiler, a tracer, a dispatch mode or a transform is to see torch's operators."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
    )


def _wanted() -> bool:
    """Whether the variable allows them. Raises ``UserError`` for another word than ``auto`` and ``eager``."""
    wanted = os.environ.get(VARIABLE) or "auto"
    if wanted not in ("auto", "eager"):
        raise UserError(f"{VARIABLE} is 'auto' or 'eager', not {wanted!r}.")
    return wanted == "auto"
