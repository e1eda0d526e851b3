"""A module ``triton`` whose kernels do nothing but count: the product's own code decides what to launch."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from pretend.log import Watch
from torch import Tensor


class _Kernel:
    def __init__(self, watch: Watch, name: str) -> None:
        self._watch, self._name = watch, name

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*args: Any, **options: Any) -> None:
            tensors = [value for value in (*args, *options.values()) if isinstance(value, Tensor)]
            log = self._watch.log
            if not all(tensor.is_cuda for tensor in tensors):
                log.fault("mixed devices", f"a tensor of the host in the kernel {self._name}")
            log.launch(
                f"triton {self._name}", 1, sum(t.numel() * t.element_size() for t in tensors)
            )

        return launch


def install(watch: Watch) -> None:
    """Let ``import triton`` find it in this process."""
    triton, language = ModuleType("triton"), ModuleType("triton.language")
    triton.jit = lambda function: _Kernel(watch, function.__name__.strip("_"))  # type: ignore[attr-defined]
    language.constexpr = lambda value: value  # type: ignore[attr-defined]
    triton.language = language  # type: ignore[attr-defined]
    for module in (triton, language):
        module.__spec__ = ModuleSpec(module.__name__, loader=None)
        sys.modules[module.__name__] = module
