"""Uniformity: whether a step in bits means the same everywhere.

``w`` is a weight before the update, ``u`` where the optimizer wanted it, ``Δw = u − w``, and ``Δb = b(u) − b(w)``
the same step on the ladder, in rungs, with ``b`` the real-valued position (``latent_position``:
the rung, and the way from it in units of the gap). Over the weights with ``Δw ≠ 0`` of a layer:

================  ========================================================================  ====
``correlation``   Pearson's correlation of |Δb| and |Δw|                                    –
``stiffness_cv``  coefficient of variation of the gap S(w): its standard deviation (with    –
                  1/n) over its mean
================  ========================================================================  ====

On a uniform grid under one scale Δb = Δw / S with one S: the correlation is 1 and the variation 0. Where
the gap follows the weight, as in floating point, equal steps of two weights are unequal in bits: the
correlation falls and the variation rises. Both are NaN where no weight, or no two different steps,
are left. Weights whose scale changed in the step are left out. ``all`` is the mean over the layers that have a
value. A NaN or inf makes a layer NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Observation, StepView
from altgrad_plugins.monitors.capacity.settings import UniformitySettings
from altgrad_plugins.monitors.geometry.ladders import intended_rung, offladder, offset
from altgrad_plugins.monitors.geometry.statistics import centred, columns, correlation
from altgrad_plugins.monitors.layers import ALL, LayerMonitor

_METRICS = ("correlation", "stiffness_cv")


class UniformityMonitor(LayerMonitor):
    """``uniformity/<layer>/{correlation, stiffness_cv}``, of the observed step."""

    def __init__(self, settings: UniformitySettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self._offsets: dict[str, Tensor] = {}

    def before_update(self, step: StepView) -> Observation | None:
        """Take positions and gaps under the scale of the step, which the update may change."""
        for name in self.layers:
            nearest = step.weights[name].value(step.rung_before(name))
            self._offsets[name] = (step.weight_before(name) - nearest).div_(step.ulp_before(name))
        return None

    def after_update(self, step: StepView) -> Observation | None:
        """Compare the step in rungs with the step of the weights."""
        if not self.layers:
            return None
        rows = torch.stack([self._row(step, name, self._offsets.pop(name)) for name in self.layers])
        rows = torch.cat((rows, rows.nanmean(0, keepdim=True)))
        return Observation(columns("uniformity", _METRICS, [*self.layers, ALL], rows))

    @staticmethod
    def _row(step: StepView, name: str, old_offset: Tensor) -> Tensor:
        intended, rung = step.weight_intended(name), intended_rung(step, name)
        step_of_weight = intended.double() - step.weight_before(name).double()
        # rungs and offsets apart: their sum would lose what small steps change
        rungs = rung.double() - step.rung_before(name).double()
        new_offset = offset(step.weights[name], intended, rung)
        step_in_rungs = rungs + (new_offset.double() - old_offset.double())
        moved = (step_of_weight != 0) & ~step.rescaled(name)
        size, gap = moved.sum(), step.ulp_before(name)
        spread = (centred(gap, moved).square().sum() / size).sqrt()
        mean = torch.where(moved, gap, 0.0).sum(dtype=torch.float64) / size
        found = correlation(step_in_rungs.abs_(), step_of_weight.abs_(), moved), spread / mean
        return torch.stack(found) + offladder(step, name)
