"""``lion``: every weight moves by the same amount, and only the direction is learnt.

Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675::

    u = sign(β₁ m + (1 − β₁) g)
    w ← w − lr (u + λ w)
    m ← β₂ m + (1 − β₂) g

It keeps one number per weight instead of Adam's two. All parameters, on a grid or not, are updated
alike; the geometry plays no part. A step of ``lr`` for every weight is longer than Adam's usual
step, so the paper advises a learning rate 3 to 10 times smaller, with ``λ`` as many times larger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.optimizer import OptimizerPlugin
from altgrad_plugins.optimizers.closure import run_closure
from altgrad_plugins.optimizers.settings import LionSettings
from altgrad_plugins.optimizers.whole import WholeOptimizer


class LionPlugin(OptimizerPlugin):
    """Builds :class:`Lion`."""

    def __init__(self, settings: LionSettings) -> None:
        self.settings = settings

    def build(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        *,
        learning_rate: float,
        generator: torch.Generator,
    ) -> Lion:
        """See :class:`OptimizerPlugin`."""
        return Lion(groups, self.settings, learning_rate)


class Lion(WholeOptimizer):
    """Sign momentum with decoupled weight decay."""

    def __init__(
        self, groups: Sequence[dict[str, Any]], settings: LionSettings, learning_rate: float
    ) -> None:
        defaults = {
            "lr": learning_rate,
            "betas": settings.betas,
            "weight_decay": settings.weight_decay,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update. Gradients are left as they are."""
        loss = run_closure(closure)
        for group in self.param_groups:
            weights: list[Tensor] = []
            grads: list[Tensor] = []
            means: list[Tensor] = []
            for parameter in group["params"]:
                if parameter.grad is not None:
                    weights.append(parameter)
                    grads.append(parameter.grad)
                    means.append(self._mean(parameter))
            if weights:
                _update(group, weights, grads, means)
        return loss

    def _mean(self, parameter: nn.Parameter) -> Tensor:
        """The mean gradient ``m`` as it stands; zero before the first step."""
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
        mean: Tensor = state["exp_avg"]
        return mean


def _update(
    group: Mapping[str, Any], weights: list[Tensor], grads: list[Tensor], means: list[Tensor]
) -> None:
    lr, (beta1, beta2) = group["lr"], group["betas"]
    mixed = torch._foreach_mul(means, beta1)
    torch._foreach_add_(mixed, grads, alpha=1 - beta1)
    signs = torch._foreach_sign(mixed)
    # torch takes the sign of NaN to be 0, which would hide a broken gradient: hand it on instead
    torch._foreach_mul_(mixed, 0.0)
    torch._foreach_add_(signs, mixed)
    if group["weight_decay"]:
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
    torch._foreach_add_(weights, signs, alpha=-lr)
    torch._foreach_mul_(means, beta2)
    torch._foreach_add_(means, grads, alpha=1 - beta2)
