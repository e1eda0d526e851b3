"""A dispatch mode that notes, on the CPU, what on an accelerator would make the host wait for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::bincount",
    "aten::masked_select",
    "aten::unique",
    "aten::_unique",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nanmedian",
    "aten::repeat_interleave.Tensor",
    "aten::lift_fresh",  # torch.tensor and new_tensor: on another device, a blocking copy
)


class Watch(TorchDispatchMode):
    """Notes the operations that would wait on a device, among them an index by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        masks = name.startswith("aten::index") and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool
            for i in (args[1] if isinstance(args[1], list | tuple) else [])
        )
        if name.startswith(WAITING) or masks:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))
