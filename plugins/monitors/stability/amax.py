"""Amax: the largest magnitude of each weight and of its gradient, and the scale in force.

===============  ==========================================================  ==================
``weight``       max |w| of the master weight that the forward pass rounded  units of the weight
``gradient``     max |g| of its gradient, as the optimizer gets it           units of the gradient
``scale``        the scale that the forward pass used (the largest one,      weight per grid unit
                 where a weight has several)
===============  ==========================================================  ==================

``all`` is the largest over the watched layers. NaN in a tensor gives NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Observation, StepView
from altgrad_plugins.monitors.layers import ALL, LayerMonitor, per_layer
from altgrad_plugins.monitors.stability.settings import AmaxSettings
from altgrad_plugins.monitors.tensors import largest


class AmaxMonitor(LayerMonitor):
    """``amax/<layer>/{weight, gradient, scale}``, before the update."""

    def __init__(self, settings: AmaxSettings) -> None:
        super().__init__(settings.interval, settings.layers)

    def before_update(self, step: StepView) -> Observation | None:
        """Read weights, gradients and scales."""
        weights = {name: step.weights[name].parameter for name in self.layers}
        gradients = {name: p.grad for name, p in weights.items() if p.grad is not None}
        metrics: dict[str, float | Tensor] = {}
        if weights:
            scales = [step.weights[name].scale().amax() for name in weights]
            metrics |= _column("weight", list(weights), largest(list(weights.values())))
            metrics |= _column("scale", list(weights), torch.stack(scales))
        if gradients:
            metrics |= _column("gradient", list(gradients), largest(list(gradients.values())))
        return Observation(metrics)


def _column(metric: str, layers: Sequence[str], values: Tensor) -> dict[str, float | Tensor]:
    return per_layer("amax", metric, [*layers, ALL], torch.cat((values, values.amax().view(1))))
