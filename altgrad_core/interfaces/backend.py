"""What computes on the CPU: kernels that numba compiles, or torch's operators one after the other."""

from __future__ import annotations

import os
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from altgrad_core.errors import UserError

VARIABLE = "ALTGRAD_KERNELS"
_PLAIN = (Tensor, torch.nn.Parameter)


@cache
def cpu_backend() -> Literal["numba", "eager"]:
    """``numba``, or ``eager`` where it is not installed, or the environment variable asks for that.

    Raises ``UserError`` if the variable asks for what there is not.
    """
    wanted = os.environ.get(VARIABLE) or "auto"
    if wanted not in ("auto", "numba", "eager"):
        raise UserError(f"{VARIABLE} is 'auto', 'numba' or 'eager', not {wanted!r}.")
    if wanted == "eager":
        return "eager"
    try:
        import numba  # noqa: F401
    except ImportError as error:
        if wanted == "numba":
            raise UserError(f"{VARIABLE}=numba, but numba cannot be imported: {error}") from error
        return "eager"
    return "numba"


def is_compiled(x: Tensor) -> bool:
    """Whether a compiled kernel may compute on ``x``: plain values in the CPU's memory, seen by no transform."""
    return (
        x.device.type == "cpu"
        and type(x) in _PLAIN
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and cpu_backend() == "numba"
    )
