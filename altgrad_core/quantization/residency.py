"""Keeping resident weights on their grids, whatever optimizer moves them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.quantization.conversion.sharded import refuse_sharded
from altgrad_core.quantization.modules.linear import QuantizedModule
from altgrad_core.quantization.modules.weight_quantizer import WeightQuantizer
from altgrad_core.quantization.resident.kept import is_kept
from altgrad_core.quantization.resident.weight import Resident


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
        self._attached: dict[Callable[[], None], None] = {}
        """What ends each attachment to an optimizer."""
        is_kept(module for module, _ in self._weights.values())

    def __len__(self) -> int:
        return len(self._weights)

    def attach(self, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        """Settle after every step of ``optimizer``; the function returned ends that.

        So does ``dequantize_model``, for the weights that it takes off their grids.
        """

        def begin(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            self.begin()

        def settle(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            # A fused optimizer under a GradScaler is called in steps that it has to skip, too.
            self.settle(skipped=getattr(optimizer, "found_inf", None))

        handles = [
            optimizer.register_step_pre_hook(begin),
            optimizer.register_step_post_hook(settle),
        ]
        keepers = [resident.keepers for _, resident in self._residents()]

        def detach() -> None:
            for handle in handles:
                handle.remove()
            self._attached.pop(detach, None)
            for one in keepers:
                if not self._attached and self._drop in one:
                    one.remove(self._drop)

        self._attached[detach] = None
        for one in keepers:
            if self._drop not in one:
                one.append(self._drop)
        return detach

    def _drop(self, module: nn.Module) -> None:
        """The weights of ``module`` live on no grid any longer."""
        for name in [name for name, (kept, _) in self._weights.items() if kept is module]:
            del self._weights[name]
        if not self._weights:
            for detach in list(self._attached):
                detach()

    def begin(self) -> None:
        """Before an update: see to weights that something else has written. Waits for nothing."""
        for module, resident in self._residents():
            resident.begin(module)

    def settle(self, skipped: Tensor | None = None) -> None:
        """Round every resident weight back to its grid, in model order. Waits for nothing.

        skipped:
            0-d; where it is not 0 (a GradScaler's ``found_inf``), the step was skipped and nothing
            is changed. Stochastic rounding draws its numbers all the same.
        """
        self._intended = {}
        for name, (module, attribute) in self._weights.items():
            quantizer = module.weight_quantizers[attribute]
            if name in self._watched:
                self._intended[name] = quantizer.weight(module).detach().clone()
            if quantizer.resident is not None:
                quantizer.resident.settle(module, self._generator, skipped)
        self._watched = set()

    def _residents(self) -> list[tuple[QuantizedModule, Resident]]:
        quantizers = [(m, m.weight_quantizers[name]) for m, name in self._weights.values()]
        return [(m, q.resident) for m, q in quantizers if q.resident is not None]

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


def residency_of(model: nn.Module) -> GridResidency | None:
    """What keeps the weights of ``model`` on their grids; None if nothing does."""
    for _, quantizer in resident_weights(model).values():
        for keeper in quantizer.resident.keepers if quantizer.resident is not None else ():
            owner = getattr(keeper, "__self__", None)
            if isinstance(owner, GridResidency):
                return owner
    return None


def release(module: QuantizedModule) -> None:
    """Nobody keeps the weights of ``module`` on their grids any longer."""
    for quantizer in module.weight_quantizers.values():
        if quantizer.resident is not None:
            for keeper in list(quantizer.resident.keepers):
                keeper(module)


def keep_on_grid(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator | None = None,
) -> Callable[[], None]:
    """Round the resident weights of ``model`` back to their grids after every optimizer step.

    For a model that was quantised with ``residency="grid"``, and any ``torch.optim.Optimizer``.
    ``generator`` is what stochastic rounding draws from. Returns a function that ends it;
    ``dequantize_model`` ends it, too. A copy of model and optimizer needs a call of its own.

    Nothing is to be done for a model whose weights are masters.

    Raises ``UserError`` if ``model`` is not quantised, or ``optimizer`` updates none of its weights
    that live on a grid, or they are spread over several processes.
    """
    _refuse_misuse(model, optimizer)
    return GridResidency(model, generator).attach(optimizer)


def _refuse_misuse(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    if not any(isinstance(module, QuantizedModule) for module in model.modules()):
        raise UserError(
            "keep_on_grid was given a model that is not quantised. Call "
            'quantize_model(model, format, residency="grid") first.'
        )
    weights = [
        module._parameters.get(q.parameter) for module, q in resident_weights(model).values()
    ]
    if weights:
        refuse_sharded(model, resident=True)
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if weights and not any(id(weight) in moved for weight in weights):
        raise UserError(
            "keep_on_grid was given an optimizer that updates none of the model's weights on the "
            "grid. Build it from the parameters of this very model: "
            "torch.optim.AdamW(model.parameters())."
        )
