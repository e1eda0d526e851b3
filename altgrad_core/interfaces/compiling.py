"""Compiling kernels for the CPU with numba."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor


def kernel(signature: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile a function for arguments of the types of ``signature``, when its module is imported.

    numba keeps what it compiled beside the module, or in the user's cache folder; where it can write to
    neither, every process compiles anew.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

    def compiled(function: Callable[..., None]) -> Callable[..., None]:
        try:
            made: Callable[..., None] = njit(signature, cache=True, **options)(function)
        except RuntimeError:  # as numba says that there is nowhere to keep it
            made = njit(signature, **options)(function)
        return made

    return compiled


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of kernels."""
    made: Callable[..., Any] = njit(function)
    return made


INF = np.int32(0x7F800000)
"""The bits of inf."""


@inlined
def bits_of(value: np.float32) -> np.int32:
    """Of a float32."""
    return np.float32(value).view(np.int32)


@inlined
def float_of(bits: np.int32) -> np.float32:
    """The float32 with these bits."""
    return np.int32(bits).view(np.float32)


@inlined
def size_of(value: np.float32) -> np.int32:
    """The bits of its magnitude, among which those of NaN are the largest."""
    return np.int32(bits_of(value) & np.int32(0x7FFFFFFF))


def _fma_of(kind: Any) -> Any:
    """``a · b + c``, rounded once."""

    @intrinsic  # type: ignore[untyped-decorator]
    def fused(context: Any, a: Any, b: Any, c: Any) -> Any:
        def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.fma(*arguments)

        return kind(kind, kind, kind), generate

    return fused


fma, fma_of_doubles = map(_fma_of, (types.float32, types.float64))


def _pointer_to(kind: Any) -> Any:
    """The pointer to numbers at an address, for ``numba.carray``: a kernel can then be given a table of tensors."""

    @intrinsic  # type: ignore[untyped-decorator]
    def numbers_at(context: Any, address: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], target.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return numbers_at


floats_at, ints_at, shorts_at = map(_pointer_to, (types.float32, types.int32, types.int16))


def flat(x: Tensor) -> NDArray[np.float32]:
    """The values of a contiguous float32 tensor on the CPU, which a kernel may read and write.

    Not by ``Tensor.numpy()``, after which a storage can no longer be resized, as FSDP2 does with weights.
    The array is good as long as ``x`` is held.
    """
    if not x.numel():
        return np.empty(0, np.float32)
    held = (ctypes.c_float * x.numel()).from_address(x.data_ptr())
    found: NDArray[np.float32] = np.ctypeslib.as_array(held)
    return found


def plain(x: Tensor) -> bool:
    """Whether kernels may read and write ``x``, a tensor on the CPU, by :func:`flat`."""
    return x.dtype == torch.float32 and x.is_contiguous() and not x.is_neg()
