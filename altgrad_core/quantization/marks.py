"""Whether a tensor is as it was, told without a look at its values."""

from __future__ import annotations

from torch import Tensor

Mark = tuple[int, int | None]


def mark_of(tensor: Tensor) -> Mark:
    """Changes with every in-place operation on the tensor, and with its storage."""
    version = None if tensor.is_inference() else tensor._version
    return tensor.untyped_storage()._cdata, version
