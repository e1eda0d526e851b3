"""Flips and stalls: which updates of the master weights reach the grid.

Let ``w`` and ``w'`` be a weight before and after the update, ``k`` and ``k'`` the rungs that they
round to, both under the scale of the step's forward pass. Over the ``n`` elements of a layer, in
this one step:

===============  ===================================  =====
``flips``        #{k' ≠ k}                            count
``flip_ratio``   flips / n                            –
``stalls``       #{w' ≠ w and k' = k}                 count
``stall_ratio``  stalls / #{w' ≠ w}; NaN when 0 / 0   –
===============  ===================================  =====

``w' − w`` is the intended update, so a stall is a non-zero intended update that left the rung
unchanged. ``all`` sums the counts over the watched layers and divides the sums. Nothing is
accumulated: what happened in the steps between two measurements is not in these numbers.
"""

from __future__ import annotations

import torch

from altgrad_core.interfaces.monitor import Observation, StepView
from altgrad_plugins.monitors.layers import (
    ALL,
    LayerMonitor,
    counts_and_rates,
    per_layer,
    with_total,
)
from altgrad_plugins.monitors.settings import FlipsSettings


class FlipsMonitor(LayerMonitor):
    """``flips/<layer>/{flips, flip_ratio, stalls, stall_ratio}``, of the observed step only."""

    def __init__(self, settings: FlipsSettings) -> None:
        super().__init__(settings.interval, settings.layers)

    def before_update(self, step: StepView) -> Observation | None:
        """Keep the old weights and rungs."""
        for name in self.layers:
            step.weight_before(name)
            step.rung_before(name)
        return None

    def after_update(self, step: StepView) -> Observation | None:
        """Compare with the new ones."""
        if not self.layers:
            return None
        flips, intended, sizes = {}, {}, {}
        for name in self.layers:
            weight = step.weights[name].parameter
            flips[name] = torch.count_nonzero(step.rung_after(name) != step.rung_before(name))
            intended[name] = torch.count_nonzero(weight != step.weight_before(name))
            sizes[name] = weight.numel()
        metrics = counts_and_rates("flips", "flips", "flip_ratio", flips, sizes)
        moved = with_total(torch.stack(list(intended.values())))
        # Under one scale the rung depends on the weight alone: every flip is an intended update.
        stalls = moved - with_total(torch.stack(list(flips.values())))
        names = [*self.layers, ALL]
        metrics |= per_layer("flips", "stalls", names, stalls)
        metrics |= per_layer("flips", "stall_ratio", names, stalls / moved)
        return Observation(metrics)
