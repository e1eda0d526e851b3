"""Distance to the grid: how far the weights that rounding gets are from a grid value.

Let ``u`` be where the optimizer wanted a weight, ``v`` the grid value nearest to it, and ``S(u)``
the gap that ``u`` lies in, all under the scale by which ``u`` is rounded. For a master ``u`` is the new
master; a resident weight is rounded to the grid after this measurement. With ``d = |u − v| / S(u)``:

=================  ========================================  ====  ==================
metric             definition                                unit  where d is uniform
=================  ========================================  ====  ==================
``mean``           mean of d                                 ULP   1/4
``rms``            sqrt(mean d²)                             ULP   1/sqrt(12)
``near_midpoint``  share of the weights with |d − ½| ≤ 1/16  –     1/8
=================  ========================================  ====  ==================

d is at most ½ within the grid, and grows without bound beyond its ends. Of a master d is uniform, or
nearly so, where its updates have long been finer than the gaps; a resident weight starts each step
on the grid, so d is the part of its update that rounding has to decide about. What Kahan compensation
adds before rounding is not in ``u``. ``all`` is over the weights of all watched layers. A NaN or inf
makes a layer NaN.
"""

from __future__ import annotations

import torch

from altgrad_core.interfaces.monitor import Observation, RunView, StepView
from altgrad_plugins.monitors.geometry.ladders import intended_rung, offset
from altgrad_plugins.monitors.geometry.settings import DistanceSettings
from altgrad_plugins.monitors.geometry.statistics import columns, size_shares, spoilt
from altgrad_plugins.monitors.layers import ALL, LayerMonitor

_METRICS = ("mean", "rms", "near_midpoint")


class DistanceMonitor(LayerMonitor):
    """``distance/<layer>/{mean, rms, near_midpoint}``, of the weights as the optimizer left them."""

    def __init__(self, settings: DistanceSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self._shares = torch.empty(0)

    def start(self, run: RunView) -> Observation | None:
        """Choose the layers and weigh them."""
        super().start(run)
        self._shares = size_shares(run.weights, self.layers)
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """See to it that the intended weights are kept."""
        for name in self.layers:
            if step.weights[name].resident:
                step.weight_before(name)
        return None

    def after_update(self, step: StepView) -> Observation | None:
        """Measure the distances."""
        if not self.layers:
            return None
        rows = []
        for name in self.layers:
            weight = step.weight_intended(name)
            distance = offset(step.weights[name], weight, intended_rung(step, name)).abs_()
            near = torch.count_nonzero((distance - 0.5).abs_() <= 1 / 16)
            row = torch.stack(
                (
                    distance.sum(dtype=torch.float64),
                    distance.to(torch.float64).square_().sum(),
                    near.to(torch.float64),
                )
            )
            rows.append(row / distance.numel() + spoilt(distance))
        means = torch.stack(rows)
        means = torch.cat((means, (means * self._shares).sum(0, keepdim=True)))
        means[:, 1].sqrt_()
        return Observation(columns("distance", _METRICS, [*self.layers, ALL], means))
