"""Weights on their grids that nobody keeps there: the optimizer that moves them is told.

An optimizer would move such a weight off its grid, and training would go on as with a master. That is
found where it happens, by torch's own hook before every optimizer's step, which is put in place with
the first resident weight. Who keeps a weight does so after the steps of one optimizer: another that
moves it is told, too, unless it does so within a step of the first (as wrappers of optimizers do).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from altgrad_core.errors import UserError

_keepers: weakref.WeakKeyDictionary[Any, weakref.WeakSet[torch.optim.Optimizer]] = (
    weakref.WeakKeyDictionary()
)
"""Quantised modules -> the optimizers after whose steps their weights are rounded back; none: nobody
keeps them. Modules that are not here are seen to by hand, or no longer."""
_moving: weakref.WeakSet[Any] = weakref.WeakSet()
"""Modules whose weights may be moved now, since they will be rounded back."""
_installed = False


def needs_keeping(modules: Iterable[nn.Module]) -> None:
    """From now on, no optimizer may move the rounded weights of ``modules`` until they are kept."""
    global _installed
    if not _installed:
        register_optimizer_step_pre_hook(_refuse)
        _installed = True
    _keepers.update((module, weakref.WeakSet()) for module in modules)


def is_kept(modules: Iterable[nn.Module]) -> None:
    """Somebody sees to the weights of ``modules``, or they live on no grid any longer."""
    for module in modules:
        _keepers.pop(module, None)


def keep_after(optimizer: torch.optim.Optimizer, modules: Iterable[nn.Module]) -> None:
    """The weights of ``modules`` are rounded back after the steps of ``optimizer``."""
    for module in modules:
        _keepers.setdefault(module, weakref.WeakSet()).add(optimizer)


def keep_no_longer(optimizer: torch.optim.Optimizer, modules: Iterable[nn.Module]) -> None:
    """Undo :func:`keep_after`. Who ends the last has taken the matter into their own hands."""
    for module in modules:
        keepers = _keepers.get(module, weakref.WeakSet())
        keepers.discard(optimizer)
        if not keepers:
            _keepers.pop(module, None)


def unkept(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Those of ``modules`` whose weights nobody keeps on their grids."""
    return [module for module in modules if module in _keepers and not _keepers[module]]


def moving(modules: Iterable[nn.Module], now: bool) -> None:
    """The weights of ``modules`` are in the middle of a step that ends with their rounding, or not."""
    (_moving.update if now else _moving.difference_update)(modules)


def _refuse(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    others = [
        module
        for module, keepers in list(_keepers.items())
        if optimizer not in keepers and module not in _moving
    ]
    if not others:
        return
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for module in others:
        for name in module.weight_quantizers:
            if id(module._parameters.get(name)) in moved:
                raise UserError(
                    f"{type(optimizer).__name__} is about to move the {name!r} of a "
                    f"{type(module).__name__} off the grid that it lives on. Call "
                    f"keep_on_grid(model, optimizer) before training, for a copy of a model and for "
                    f"each of several optimizers, too; "
                    f"or quantise with residency: master."
                )
