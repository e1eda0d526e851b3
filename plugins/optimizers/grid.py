"""``grid_optim``: momentum in rungs, moving weights from grid value to grid value.

For each weight on a grid, with gradient ``g``, stiffness ``S`` and rung ``k``::

    h  = S · g                                      the gradient in rungs, dL/dk
    v  = β₂ v + (1 − β₂) mean(h²)                   one number per tensor
    m  = β₁ m + (1 − β₁) h / sqrt(v / (1 − β₂ᵗ))    momentum, about 1 in size
    Δ  = r · m / (1 − β₁ᵗ) + lr · λ · w / S         in rungs, real; the last term is weight decay
    k' = k − stochastic_round(clip(Δ, ±max_rungs))
    w' = value(k')

``r = lr / rms(S)``: with this rate, a gradient of usual size moves a weight by about ``lr`` in
its own units, as AdamW does, so learning rates that suit AdamW suit here; ``rungs_per_lr`` sets
``r`` directly, as ``rungs_per_lr · lr``. Rounding is stochastic, so moves of less than a rung
happen with the right frequency instead of being lost. Parameters on no grid are updated by AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.draws import uniform
from altgrad_core.interfaces.format import Format
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
from altgrad_plugins.optimizers.settings import GridOptimSettings

_TINY = 2.0**-126
_TINY_SQUARE_ROOT = 2.0**-500  # in float64


class GridOptimPlugin(OptimizerPlugin):
    """Builds :class:`GridOptim`."""

    def __init__(self, settings: GridOptimSettings) -> None:
        self.settings = settings

    def build(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        *,
        learning_rate: float,
        generator: torch.Generator,
    ) -> GridOptim:
        """See :class:`OptimizerPlugin`."""
        return GridOptim(groups, geometry, self.settings, learning_rate, generator)


@dataclass(frozen=True)
class Ladder:
    """The ends of a format's ladder: the outermost rungs, and the gap there, in grid units."""

    lowest: int
    highest: int
    gap_below: float
    gap_above: float

    @classmethod
    def of(cls, fmt: Format) -> Ladder:
        """Asked once, on the CPU."""
        rungs = fmt.to_rung(
            torch.tensor([-torch.inf, torch.inf], dtype=torch.float32, device="cpu")
        )
        lowest, highest = rungs.tolist()
        gap_below, gap_above = fmt.ulp(fmt.from_rung(rungs)).tolist()
        return cls(lowest, highest, gap_below, gap_above)


class GridOptim(AdamWOnGrids):
    """Moves weights along their grids; draws from ``generator`` and nothing else.

    After a step every weight is a grid value under the scale of the step. There is one exception:
    a weight that moves up from the last rung goes one gap beyond it. Otherwise the end of the
    ladder would be a wall, and the scale, which follows the largest weight, could only ever
    shrink. The next forward finds a larger amax, and with power-of-two scales doubles the scale;
    all weights are then rounded to the coarser grid once. When the largest weight shrinks and the
    scale is halved, every weight stays where it is, since all its grid values lie on the finer
    grid, too. Where parts of a weight have scales of their own, this holds for each part.
    """

    own_dtypes = ("mean_square",)

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        settings: GridOptimSettings,
        learning_rate: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(groups, geometry, settings, learning_rate)
        self.settings = settings
        self.generator = generator
        self._ladders: dict[Format, Ladder] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update. Gradients are left as they are."""
        loss = run_closure(closure)
        for group in self.param_groups:
            others = [p for p in group["params"] if p not in self.geometry]
            adam_update(group, adam_state(self, group, others))
            for parameter in group["params"]:
                if parameter in self.geometry and parameter.grad is not None and parameter.numel():
                    self._move(group, parameter, parameter.grad)
        return loss

    def _move(self, group: Mapping[str, Any], parameter: nn.Parameter, grad: Tensor) -> None:
        geometry = self.geometry[parameter]
        weight = parameter.detach()
        stiffness = geometry.ulp(weight)
        relative, largest = relative_to_largest(stiffness)
        move = self._direction(group, parameter, grad * relative, largest)
        lr, settings = group["lr"], self.settings
        if settings.rungs_per_lr is None:
            move.mul_(lr).div_(root_mean_square(relative, largest).clamp_min(_TINY))
        else:
            move.mul_(lr * settings.rungs_per_lr)
        if group["weight_decay"]:
            move.addcdiv_(weight, stiffness, value=lr * group["weight_decay"])
        move.clamp_(-settings.max_rungs, settings.max_rungs)
        target = geometry.rung(weight) - stochastic_round(move, self.generator).to(torch.int32)
        moved = geometry.value(target) + self._beyond(parameter, target) * geometry.scale()
        # a NaN has no rung: hand it on instead of healing it
        broken = (move + weight).isnan()
        parameter.copy_(moved.masked_fill_(broken, math.nan))

    def _direction(
        self, group: Mapping[str, Any], parameter: nn.Parameter, h: Tensor, unit: Tensor
    ) -> Tensor:
        """Momentum of the normalised gradient in rungs, without its start-up bias.

        The gradient in rungs is ``unit · h``. Where S is small its square is far below the smallest
        float32, so what is squared in float32 is relative, and what it is relative to, float64.
        """
        momentum, decay = self.settings.momentum, self.settings.rms_decay
        state = self.state[parameter]
        if not state:
            state["step"] = step_counter(group, parameter)
            state["mean_square"] = torch.zeros((), dtype=torch.float64, device=h.device)
            state["momentum"] = torch.zeros_like(h)
        step = state["step"].add_(1)
        relative, largest = relative_to_largest(h)
        size = largest.double() * unit.double()
        square = relative.square().mean().double() * size.square()
        mean_square = state["mean_square"].lerp_(square, 1 - decay)
        usual = (mean_square / (1 - decay ** step.double())).sqrt().clamp_min(_TINY_SQUARE_ROOT)
        normalised = relative.mul_((size / usual).to(h.dtype))
        mean = state["momentum"].lerp_(normalised, 1 - momentum)
        direction: Tensor = mean / (1 - momentum**step)
        return direction

    def _ladder(self, fmt: Format) -> Ladder:
        """The ends of a format, which a weight may change in the middle of a run."""
        if fmt not in self._ladders:
            self._ladders[fmt] = Ladder.of(fmt)
        return self._ladders[fmt]

    def _beyond(self, parameter: nn.Parameter, target: Tensor) -> Tensor:
        """How far beyond the last grid value each target lies, in grid units; almost always 0."""
        ladder = self._ladder(self.geometry[parameter].format)
        excess = target - target.clamp(ladder.lowest, ladder.highest)
        if ladder.gap_below == ladder.gap_above:
            return excess * ladder.gap_above
        return torch.where(excess < 0, excess * ladder.gap_below, excess * ladder.gap_above)


def stochastic_round(x: Tensor, generator: torch.Generator) -> Tensor:
    """One of the two whole numbers next to each element, with mean ``x``; whole numbers stay."""
    draw = uniform(x, generator)
    size = x.abs()
    whole = size.floor()
    up = size.sub_(whole).sub_(draw).ceil_()  # 1 where the fraction is larger than the draw
    return whole.add_(up).copysign_(x)
