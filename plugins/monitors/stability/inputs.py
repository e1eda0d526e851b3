"""Counts overflow and underflow among the inputs of quantised layers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.quantization.linear import QuantizedModule
from altgrad_core.quantization.quantizer import TensorQuantizer
from altgrad_plugins.monitors.stability.ranges import Range


class InputProbe:
    """Counts what the activation format cannot hold, layer by layer, in forward hooks.

    A layer is named by its (first) quantised weight. Only forwards of a module that is training, in
    steps for which ``wanted`` is true, are counted; several of them in one step are added up.

    The hooks never raise, since that would end the run: :meth:`take` raises what went wrong.
    """

    def __init__(
        self, model: nn.Module, layers: Collection[str], wanted: Callable[[], bool]
    ) -> None:
        self._wanted = wanted
        self._counts: dict[str, tuple[Tensor, Tensor, int]] = {}
        self._error: Exception | None = None
        self._handles = []
        for path, module in model.named_modules():
            if isinstance(module, QuantizedModule) and module.input_quantizer is not None:
                name = ".".join(filter(None, (path, next(iter(module.weight_quantizers)))))
                if name in layers:
                    hook = self._hook(name, module.input_quantizer)
                    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
                    self._handles.append(handle)

    def take(self) -> dict[str, tuple[Tensor, Tensor, int]]:
        """Overflows, underflows and elements for each layer since the last call.

        Raises what went wrong in a hook since then.
        """
        if self._error is not None:
            self.close()
            raise self._error
        counts, self._counts = self._counts, {}
        return counts

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(
        self, name: str, quantizer: TensorQuantizer
    ) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        held = Range.of(quantizer.format)

        def observe(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not module.training or not self._wanted():
                return
            try:
                with torch.no_grad():
                    x = args[0] if args else kwargs["input"]
                    over, under = held.counts(x, quantizer.scale_of(module, x))
                self._add(name, over, under, x.numel())
            except Exception as error:
                self._error = error

        return observe

    def _add(self, name: str, over: Tensor, under: Tensor, size: int) -> None:
        if name in self._counts:
            before = self._counts[name]
            over, under, size = over + before[0], under + before[1], size + before[2]
        self._counts[name] = (over, under, size)
