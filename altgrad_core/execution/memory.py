"""Telling an error that means "out of memory" from others, on the host and on the device."""

from __future__ import annotations

import errno

import torch

_SAID = (
    "DefaultCPUAllocator: can't allocate memory",
    "std::bad_alloc",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What libraries say that have no type for it. An allocation that the driver or a library makes, rather than torch,
fails as a ``RuntimeError`` of these words."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it, or what it was raised from, means that host or device had no memory left."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        if isinstance(one, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(one, OSError) and one.errno == errno.ENOMEM:
            return True
        if isinstance(one, RuntimeError) and any(words in str(one) for words in _SAID):
            return True
        one = one.__cause__
    return False
