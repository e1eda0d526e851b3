"""Compiling kernels for the CPU with numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(types: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile a function for arguments of these types, when its module is imported.

    numba keeps what it compiled beside the module, or in the user's cache folder; where it can write to
    neither, every process compiles anew.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

    def compiled(function: Callable[..., None]) -> Callable[..., None]:
        try:
            made: Callable[..., None] = njit(types, cache=True, **options)(function)
        except RuntimeError:  # as numba says that there is nowhere to keep it
            made = njit(types, **options)(function)
        return made

    return compiled


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of kernels."""
    made: Callable[..., Any] = njit(function)
    return made
