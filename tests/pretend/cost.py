"""How many kernels torch launches for one of its operators on CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

_ALLOCATES = {
    "empty",
    "empty_like",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
    "lift_fresh",
    "set_",
}
_SEVERAL = {"sort": 6, "count_nonzero": 2, "native_layer_norm_backward": 3, "_linalg_eigh": 3}
_MOST_TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""Tensors that one launch takes, by the number of lists (``ATen/native/cuda/MultiTensorApply.cuh``)."""
_CHUNK, _MOST_CHUNKS = 65536, 320
_JOINED = 128
"""Tensors that one launch of ``cat`` and ``stack`` takes."""


def is_launched(func: Any) -> bool:
    """Whether an operator does any work on the device: one that gives a view of its argument does not."""
    name = func.overloadpacket.__name__
    return not (
        func.is_view or name in _ALLOCATES or name.startswith(("sym_", "_unsafe_view", "is_"))
    )


def launches_of(name: str, args: Sequence[Any], made: Sequence[Tensor]) -> int:
    """The launches of one call."""
    if name.startswith(("_foreach", "_fused")):
        return _multi_tensor(name, [one for one in args if _is_list(one)])
    if name in ("cat", "stack"):
        return -(-len(args[0]) // _JOINED)
    if all(tensor.numel() == 0 for tensor in made) and made:
        return 0
    return _SEVERAL.get(name, 1)


def _multi_tensor(name: str, lists: list[Sequence[Tensor]]) -> int:
    """Few launches where the lists go together, element by element; else one for each tensor."""
    first = lists[0]
    alike = all(
        one.shape == other.shape and one.dtype == other.dtype and other.is_cuda
        for several in lists
        if len(several) == len(first)
        for one, other in zip(first, several, strict=True)
    )
    if name.startswith("_foreach") and not alike:
        return len(first)
    depth = 4 if name.startswith("_fused_adam") else len(lists) + (not name.endswith("_"))
    chunks = sum(-(-tensor.numel() // _CHUNK) for tensor in first)
    launches = max(-(-len(first) // _MOST_TENSORS[min(depth, 5)]), -(-chunks // _MOST_CHUNKS))
    return launches + (name == "_foreach_norm")  # which adds up what its blocks have found


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Tensor)
