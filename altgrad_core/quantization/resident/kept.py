"""Weights on their grids that nobody keeps there: the optimizer that moves them is told.

An optimizer would move such a weight off its grid, and training would go on as with a master. That is
found where it happens, by torch's own hook before every optimizer's step, which is put in place with
the first resident weight and costs nothing once every one is kept.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from altgrad_core.errors import UserError

_unkept: weakref.WeakSet[Any] = weakref.WeakSet()
"""Quantised modules whose resident weights nobody keeps on their grids."""
_installed = False


def needs_keeping(modules: Iterable[nn.Module]) -> None:
    """From now on, no optimizer may move the rounded weights of ``modules`` until they are kept."""
    global _installed
    if not _installed:
        register_optimizer_step_pre_hook(_refuse)
        _installed = True
    _unkept.update(modules)


def is_kept(modules: Iterable[nn.Module]) -> None:
    """Somebody sees to the weights of ``modules``, or they live on no grid any longer."""
    for module in modules:
        _unkept.discard(module)


def _refuse(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    if not _unkept:
        return
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for module in _unkept:
        for name in module.weight_quantizers:
            if id(module._parameters.get(name)) in moved:
                raise UserError(
                    f"{type(optimizer).__name__} is about to move the {name!r} of a "
                    f"{type(module).__name__} off the grid that it lives on. Call "
                    f"keep_on_grid(model, optimizer) before training, for a copy of a model, too; "
                    f"or quantise with residency: master."
                )
