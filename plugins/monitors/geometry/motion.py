"""Motion: how long the steps are that the optimizer takes, in units of the gaps it takes them in.

For the intended update ``Δ = u − w`` (``u`` is where the optimizer wanted the weight) and the gap
``S(w)`` of the grid at the old weight, under the scale of the step, let ``m = |Δ| / S(w)``, in rungs of the
format. A step of a resident weight with m < ½ is lost to rounding to nearest, unless the gap on the
side it goes to is smaller.

============================  =============================================================  =====
``median``, ``q90``, ``q99``  quantiles (50, 90, 99 %) of m: the least value that so many    rungs
                              of the weights do not exceed
``max``                       the largest m                                                  rungs
``above_half``                share of the weights with m > ½                                –
``above_one``                 share of the weights with m > 1                                –
============================  =============================================================  =====

Weights that are not moved count as well. ``all`` is the mean over layers of the quantiles, the largest
``max``, and the shares of all watched weights. A NaN or inf makes a layer NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Observation, RunView, StepView
from altgrad_plugins.monitors.geometry.settings import MotionSettings
from altgrad_plugins.monitors.geometry.statistics import columns, quantiles, size_shares, spoilt
from altgrad_plugins.monitors.layers import ALL, LayerMonitor

_METRICS = ("median", "q90", "q99", "max", "above_half", "above_one")


class MotionMonitor(LayerMonitor):
    """``motion/<layer>/{median, q90, q99, max, above_half, above_one}``, of the observed step."""

    def __init__(self, settings: MotionSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self._shares = torch.empty(0)

    def start(self, run: RunView) -> Observation | None:
        """Choose the layers and weigh them."""
        super().start(run)
        self._shares = size_shares(run.weights, self.layers)
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Keep the old weights and their gaps."""
        for name in self.layers:
            step.weight_before(name)
            step.ulp_before(name)
        return None

    def after_update(self, step: StepView) -> Observation | None:
        """Measure the intended update."""
        if not self.layers:
            return None
        rows = torch.stack([_row(_motion(step, name)) for name in self.layers])
        sizes, longest, shares = rows[:, :3], rows[:, 3:4], rows[:, 4:]
        every = torch.cat((sizes.mean(0), longest.amax(0), (shares * self._shares).sum(0)))
        rows = torch.cat((rows, every[None]))
        return Observation(columns("motion", _METRICS, [*self.layers, ALL], rows))


def _motion(step: StepView, name: str) -> Tensor:
    update = step.weight_intended(name) - step.weight_before(name)
    return update.abs_().div_(step.ulp_before(name))


def _row(motion: Tensor) -> Tensor:
    sizes = torch.cat((quantiles(motion, (50, 90, 99)), motion.amax()[None]))
    counts = torch.stack([torch.count_nonzero(motion > limit) for limit in (0.5, 1.0)])
    shares = counts.to(torch.float64) / motion.numel()
    row = torch.cat((sizes.to(torch.float64), shares))
    return row + spoilt(motion)
