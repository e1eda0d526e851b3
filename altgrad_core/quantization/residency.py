"""Keeping resident weights on their grids, whatever optimizer moves them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.quantization.linear import QuantizedModule
from altgrad_core.quantization.quantizer import WeightQuantizer


def resident_weights(model: nn.Module) -> dict[str, tuple[QuantizedModule, WeightQuantizer]]:
    """The weights that live on their grids: parameter name -> module and quantizer."""
    return {
        ".".join(filter(None, (path, name))): (module, quantizer)
        for path, module in model.named_modules()
        if isinstance(module, QuantizedModule)
        for name, quantizer in module.weight_quantizers.items()
        if quantizer.resident is not None
    }


class GridResidency:
    """The resident weights of a model, and the moment after each step when they settle.

    generator:
        what stochastic rounding draws from; None where nothing is rounded stochastically.
    """

    def __init__(self, model: nn.Module, generator: torch.Generator | None = None) -> None:
        self._generator = generator
        self._weights: dict[str, tuple[QuantizedModule, str]] = {
            name: (module, quantizer.parameter)
            for name, (module, quantizer) in resident_weights(model).items()
        }
        self._watched: set[str] = set()
        self._intended: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._weights)

    def attach(self, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        """Settle after every step of ``optimizer``; the function returned ends that."""

        def settle(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            self.settle()

        handle = optimizer.register_step_post_hook(settle)
        return handle.remove

    def settle(self) -> None:
        """Round every resident weight back to its grid, in model order. Waits for nothing."""
        self._intended = {}
        for name, (module, attribute) in self._weights.items():
            quantizer = module.weight_quantizers[attribute]
            if name in self._watched:
                self._intended[name] = quantizer.weight(module).detach().clone()
            if quantizer.resident is not None:
                quantizer.resident.settle(module, self._generator)
        self._watched = set()

    def watch(self, names: Collection[str]) -> None:
        """Keep what the optimizer wants of these weights (by parameter name) at the next settling."""
        self._watched.update(name for name in names if name in self._weights)

    def intended(self, name: str) -> Tensor | None:
        """The weight as the optimizer wanted it, before it was rounded back. See :meth:`watch`.

        None if the last settling did not keep it, or nothing has settled since.
        """
        return self._intended.get(name)

    def forget(self) -> None:
        """Drop what was kept, and what was to be kept, for this step."""
        self._intended = {}
        self._watched = set()


def keep_on_grid(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator | None = None,
) -> Callable[[], None]:
    """Round the resident weights of ``model`` back to their grids after every optimizer step.

    For a model that was quantised with ``residency="grid"``, and any ``torch.optim.Optimizer``.
    ``generator`` is what stochastic rounding draws from. Returns a function that ends it.
    """
    return GridResidency(model, generator).attach(optimizer)
