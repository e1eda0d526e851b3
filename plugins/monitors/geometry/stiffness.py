"""The stiffness field: how coarse the grid is where the weights stand, and whether gradients feel it.

``S = S(w)`` is the gap between grid values at a weight ``w`` before the update, scale included: in
units of the weight, for a master where the master stands.

============================  =============================================================  ====
``log2_q05`` … ``log2_q95``   quantiles (5, 25, 50, 75, 95 %) of log2 S: the least value     log2
                              that so many of the weights do not exceed
``rms_per_amax``              sqrt(mean S²) / max |w|: the gap as a share of the range       –
``gradient_correlation``      Pearson's correlation of log2 |g| and log2 S, over the         –
                              weights with a finite gradient g ≠ 0; NaN where S is constant
``gradient_spearman``         the same of their ranks (ties share theirs), if ``spearman``   –
``top_binade``                T = floor(log2 max S)                                          log2
``binade_0`` … ``binade_15``  share of the weights with floor(log2 S) = T − j; the last bin  –
                              also has all that lie lower
============================  =============================================================  ====

The ``binade_*`` are one column of a heat map over training: step × (``top_binade`` − j). A uniform
grid has its whole weight in ``binade_0``.

``all`` pools the weights for ``binade_*`` (each counted from the top of its own layer) and is the
mean over layers otherwise, for the correlations over the layers that have one; there is no
``top_binade`` of all. A weight with NaN or inf makes all but the correlations of its layer NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.monitor import Observation, RunView, StepView
from altgrad_plugins.monitors.geometry.settings import StiffnessSettings
from altgrad_plugins.monitors.geometry.statistics import (
    average_ranks,
    columns,
    correlation,
    quantiles,
    size_shares,
    spoilt,
)
from altgrad_plugins.monitors.layers import ALL, LayerMonitor
from altgrad_plugins.monitors.tensors import largest

_PERCENT = (5, 25, 50, 75, 95)


class StiffnessMonitor(LayerMonitor):
    """``stiffness/<layer>/<metric>``, before the update."""

    def __init__(self, settings: StiffnessSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self.binades = settings.binades
        self.spearman = settings.spearman
        self._field = [*(f"log2_q{percent:02d}" for percent in _PERCENT), "rms_per_amax"]
        self._correlations = ["gradient_correlation", *["gradient_spearman"] * settings.spearman]
        self._bins = [f"binade_{index}" for index in range(settings.binades)]
        self._shares = torch.empty(0)

    def start(self, run: RunView) -> Observation | None:
        """Choose the layers and weigh them."""
        super().start(run)
        self._shares = size_shares(run.weights, self.layers)
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Measure where the weights stand."""
        if not self.layers:
            return None
        field, correlations, bins, tops = [], [], [], []
        for name in self.layers:
            geometry = step.weights[name]
            weight = geometry.parameter.detach()
            stiffness = step.ulp_before(name)
            broken = spoilt(weight) + spoilt(stiffness)
            top, counts = binade_counts(stiffness, self.binades)
            field.append(self._quantiles(weight, stiffness) + broken)
            correlations.append(self._with_gradient(geometry, stiffness))
            bins.append(counts / stiffness.numel() + broken)
            tops.append(top + broken)
        groups = torch.stack(field), torch.stack(correlations), torch.stack(bins)
        layers, each = [*self.layers, ALL], torch.cat(groups, 1)
        pooled = (groups[2] * self._shares).sum(0)
        every = torch.cat((groups[0].mean(0), groups[1].nanmean(0), pooled))
        names = [*self._field, *self._correlations, *self._bins]
        metrics = columns("stiffness", names, layers, torch.cat((each, every[None])))
        return Observation(
            metrics | columns("stiffness", ["top_binade"], self.layers, torch.stack(tops)[:, None])
        )

    @staticmethod
    def _quantiles(weight: Tensor, stiffness: Tensor) -> Tensor:
        positions = quantiles(stiffness, _PERCENT).to(torch.float64).log2()
        rms = stiffness.to(torch.float64).square().mean().sqrt()
        return torch.cat((positions, rms / largest([weight])))

    def _with_gradient(self, geometry: WeightGeometry, stiffness: Tensor) -> Tensor:
        gradient = geometry.parameter.grad
        if gradient is None:
            return stiffness.new_full((len(self._correlations),), torch.nan, dtype=torch.float64)
        size, gap = gradient.detach().abs().log2(), stiffness.log2()
        counted = size.isfinite() & gap.isfinite()
        found = [correlation(size, gap, counted)]
        if self.spearman:
            size, gap = average_ranks(size, counted), average_ranks(gap, counted)
            found.append(correlation(size, gap, counted))
        return torch.stack(found)


def binade_counts(stiffness: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """``floor(log2)`` of the largest element (0-d), and how many lie in each binade from there down.

    float64, ``(bins,)``; the last one also counts all below.
    """
    exponent = torch.frexp(stiffness.flatten()).exponent
    top = exponent.amax()
    below = (top - exponent).clamp_(0, bins - 1).to(torch.int64)
    counts = torch.zeros(bins, dtype=torch.int64, device=below.device)
    counts.scatter_add_(0, below, torch.ones_like(below))
    return (top - 1).to(torch.float64), counts.to(torch.float64)
