"""``madam``: weights are multiplied, not added to, so each moves in proportion to itself.

Bernstein et al. 2020, "Learning compositional functions via multiplicative weight updates",
arXiv:2006.14560. For each weight on a grid::

    v  = β v + (1 − β) g²
    ĝ  = clip(g / sqrt(v / (1 − βᵗ)), ±g_bound)
    w' = clip(w · exp(−lr · sign(w) · ĝ), ±p_scale · rms(w₀))

``rms(w₀)`` is that of the tensor at the first step. In the logarithm of a weight this is an additive
step, so on the grids that are almost logarithmic (``e7m0``, ``e6m1``) it goes a steady number of
rungs: a rival to the stiffness that needs no geometry. What follows from the formula:

- The learning rate is relative: a gradient of usual size changes a weight by the fraction ``lr``.
- No weight changes its sign, and one that is exactly zero never moves: a tensor of zeros stays one,
  and with residency ``grid`` a weight that was rounded to zero is lost.
- No weight decay: the limit takes its place. Weights that start beyond it are cut at the first step.

Hence parameters that are on no grid (biases, which start at zero, norms, embeddings) are updated by
AdamW, at the learning rate ``adamw_rate · lr``, since theirs is absolute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.optimizer import OptimizerPlugin
from altgrad_plugins.optimizers.adamw import (
    AdamWOnGrids,
    adam_state,
    adam_update,
    step_counter,
)
from altgrad_plugins.optimizers.closure import run_closure
from altgrad_plugins.optimizers.rms import relative_to_largest, root_mean_square
from altgrad_plugins.optimizers.settings import MadamSettings

_TINY = 2.0**-126


class MadamPlugin(OptimizerPlugin):
    """Builds :class:`Madam`."""

    def __init__(self, settings: MadamSettings) -> None:
        self.settings = settings

    def build(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        *,
        learning_rate: float,
        generator: torch.Generator,
    ) -> Madam:
        """See :class:`OptimizerPlugin`."""
        return Madam(groups, geometry, self.settings, learning_rate)


class Madam(AdamWOnGrids):
    """Multiplies the weights that are on a grid; is AdamW for all other parameters."""

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        settings: MadamSettings,
        learning_rate: float,
    ) -> None:
        super().__init__(groups, geometry, settings, learning_rate)
        self.settings = settings

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update. Gradients are left as they are."""
        loss = run_closure(closure)
        for group in self.param_groups:
            others = [p for p in group["params"] if p not in self.geometry]
            slower = {**group, "lr": self.settings.adamw_rate * group["lr"]}
            adam_update(slower, adam_state(self, group, others))
            for parameter in group["params"]:
                if parameter in self.geometry and parameter.grad is not None and parameter.numel():
                    self._multiply(group, parameter, parameter.grad)
        return loss

    def _multiply(self, group: Mapping[str, Any], parameter: nn.Parameter, grad: Tensor) -> None:
        state, settings = self.state[parameter], self.settings
        if not state:
            state["step"] = step_counter(group, parameter)
            state["rms"] = torch.zeros_like(parameter)
            state["limit"] = settings.p_scale * root_mean_square(*relative_to_largest(parameter))
        decay, bound, limit = settings.square_decay, settings.g_bound, state["limit"]
        step = state["step"].add_(1)
        # sqrt(v), by a hypotenuse: the squares of gradients would underflow, and Madam has no eps
        rms = state["rms"].mul_(math.sqrt(decay)).hypot_(grad * math.sqrt(1 - decay))
        # a weight that has never had a gradient stays; a NaN is handed on instead of healed
        size = (rms / (1 - decay ** step.double()).sqrt()).clamp_min_(_TINY)
        move = (grad / size).clamp_(-bound, bound).mul_(parameter.sign())
        if group["lr"]:  # without a step, no limit either
            factor = move.mul_(-group["lr"]).exp_()
            parameter.mul_(factor).clamp_(-limit, limit)
