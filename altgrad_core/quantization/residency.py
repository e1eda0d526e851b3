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
from altgrad_core.quantization.resident.kept import (
    is_kept,
    keep_after,
    keep_no_longer,
    moving,
    unkept,
)
from altgrad_core.quantization.resident.together import Tables
from altgrad_core.quantization.resident.weight import Resident


def resident_weights(model: nn.Module) -> dict[str, tuple[QuantizedModule, WeightQuantizer]]:
    """The weights that live on their grids: name in the quantised module -> module and quantizer."""
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
        # As weight_geometry names them: one that is shared by the first of its names.
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._weights: dict[str, tuple[QuantizedModule, str]] = {
            names.get(id(module._parameters.get(quantizer.parameter)), path): (
                module,
                quantizer.parameter,
            )
            for path, (module, quantizer) in resident_weights(model).items()
        }
        self._attached: dict[Callable[[], None], None] = {}
        """What ends each attachment to an optimizer."""
        is_kept(unkept(module for module, _ in self._weights.values()))

    def __len__(self) -> int:
        return len(self._weights)

    def attach(self, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        """Settle what ``optimizer`` updates after each of its steps; the function returned ends that.

        So does ``dequantize_model``, for the weights that it takes off their grids.
        """

        def begin(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            moving(modules, now=True)
            self.begin(optimizer)

        def settle(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            # A fused optimizer under a GradScaler is called in steps that it has to skip, too.
            self.settle(getattr(optimizer, "found_inf", None), optimizer)
            moving(modules, now=False)

        modules = [module for module, _ in self._weights.values()]
        keep_after(optimizer, modules)
        handles = [
            optimizer.register_step_pre_hook(begin),
            optimizer.register_step_post_hook(settle),
        ]
        keepers = [resident.keepers for _, resident in self._residents().values()]

        def detach() -> None:
            for handle in handles:
                handle.remove()
            moving(modules, now=False)
            keep_no_longer(optimizer, modules)
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

    def begin(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Before an update: see to weights that something else has written. Waits for nothing.

        optimizer:
            whose update it is; None: of all weights.
        """
        for module, resident in self._residents(optimizer).values():
            resident.intended = None
            resident.begin(module)

    def settle(
        self, skipped: Tensor | None = None, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Round resident weights back to their grids, in model order. Waits for nothing.

        skipped:
            0-d; where it is not 0 (a GradScaler's ``found_inf``), the step was skipped and nothing
            is changed. Stochastic rounding draws its numbers all the same.
        optimizer:
            whose weights to round; None: all.
        """
        tables = Tables(self._generator, skipped)
        for module, resident in self._residents(optimizer).values():
            if not tables.take(module, resident):
                resident.settle(module, self._generator, skipped)
        tables.settle()

    def _residents(
        self, optimizer: torch.optim.Optimizer | None = None
    ) -> dict[str, tuple[QuantizedModule, Resident]]:
        """The weights that ``optimizer`` updates, and those that are no parameters any longer."""
        found = {}
        groups = [] if optimizer is None else optimizer.param_groups
        moved = {id(p) for group in groups for p in group["params"]} | {id(None)}
        for name, (module, attribute) in self._weights.items():
            resident = module.weight_quantizers[attribute].resident
            its = optimizer is None or id(module._parameters.get(attribute)) in moved
            if its and resident is not None:
                found[name] = module, resident
        return found

    def watch(self, names: Collection[str]) -> None:
        """Keep what the optimizer wants of these weights (by parameter name) at the next settling."""
        for name, (_, resident) in self._residents().items():
            resident.watched |= name in names

    def intended(self, name: str) -> Tensor | None:
        """The weight as the optimizer wanted it, before it was rounded back. See :meth:`watch`.

        None if the last settling did not keep it, or nothing has settled since.
        """
        found = self._residents().get(name)
        return None if found is None else found[1].intended

    def forget(self) -> None:
        """Drop what was kept, and what was to be kept, for this step."""
        for _, resident in self._residents().values():
            resident.watched, resident.intended = False, None


def nobody_keeps(model: nn.Module) -> bool:
    """Whether ``model`` has weights on a grid that nobody keeps there."""
    return bool(unkept(module for module, _ in resident_weights(model).values()))


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
    ``dequantize_model`` ends it, too. A copy of model and optimizer needs a call of its own, and so does
    each of several optimizers: what one updates is rounded after its steps.

    Nothing is to be done for a model whose weights are masters.

    Raises ``UserError`` if ``model`` is not quantised, or ``optimizer`` updates none of its weights
    that live on a grid, they are spread over several processes, or they are rounded stochastically and
    there is no ``generator``.
    """
    _refuse_misuse(model, optimizer)
    stochastic = [n for n, r in resident_weights(model).items() if r[1].role.rounding != "nearest"]
    if stochastic and generator is None:
        raise UserError(
            f"{stochastic[0]} is rounded stochastically, which draws from an explicit generator: "
            f"keep_on_grid(model, optimizer, torch.Generator(device).manual_seed(0))."
        )
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
