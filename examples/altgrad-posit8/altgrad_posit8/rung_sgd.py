"""SGD with momentum in rungs: the learning rate is how many rungs of its grid a weight climbs in a step.

A step of one rung is ``dw = S(w)``, the gap to the next value, so the gradient in rungs is ``S · g``::

    r  = μ r + S · g                       momentum, in rungs
    Δw = −lr · S · r / rms(r)              lr rungs, in the root mean square over the tensor

On a tapered grid the same step is fine around the middle and coarse towards the ends. Parameters on no grid
(biases, norms) move alike, with ``off_grid`` for S.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.interfaces import OptimizerPlugin, WeightGeometry
from altgrad_posit8.settings import RungSGDSettings

Geometry = Mapping[nn.Parameter, WeightGeometry]


class RungSGDPlugin(OptimizerPlugin):
    """What the offer points at."""

    def __init__(self, settings: RungSGDSettings) -> None:
        self.settings = settings

    def build(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Geometry,
        *,
        learning_rate: float,
        generator: torch.Generator,
    ) -> RungSGD:
        return RungSGD(groups, geometry, self.settings, learning_rate)


class RungSGD(torch.optim.Optimizer):
    """See the module. Draws nothing, so it has no use for a generator."""

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Geometry,
        settings: RungSGDSettings,
        learning_rate: float,
    ) -> None:
        super().__init__(groups, {"lr": learning_rate, "momentum": settings.momentum})
        self.geometry = dict(geometry)
        self.off_grid = settings.off_grid

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group["lr"], group["momentum"])
        return loss

    def _move(self, weight: nn.Parameter, gradient: Tensor, lr: float, momentum: float) -> None:
        grid = self.geometry.get(weight)
        rung = torch.full_like(weight, self.off_grid) if grid is None else grid.ulp(weight)
        state = self.state[weight]
        state["rungs"] = momentum * state.get("rungs", torch.zeros_like(weight)) + rung * gradient
        size = state["rungs"].square().mean().sqrt().clamp_min(torch.finfo(weight.dtype).tiny)
        weight.sub_(lr * rung * (state["rungs"] / size))
