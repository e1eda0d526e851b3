"""Overflow and underflow: what is too large or too small for the format, at each stage of a step.

Counts over the ``n`` elements of a tensor; each has a ``..._rate``, the count divided by ``n``. A
value ``x`` with scale ``s`` *overflows* when ``|x / s|`` is larger than the format's largest value,
and *underflows* when ``x ≠ 0`` but ``x / s`` rounds to zero (to nearest).

======================  ==========================================================================
Forward (the scale is the one in force)
--------------------------------------------------------------------------------------------------
``weight_overflow``     overflows among the master weights before the update
``weight_underflow``    underflows among them
``input_overflow``      overflows among the inputs of the layer, where they are quantised
``input_underflow``     underflows among them
Backward
--------------------------------------------------------------------------------------------------
``gradient_nonfinite``  weight gradients that are NaN or ±inf
``gradient_underflow``  underflows among the weight gradients if they were held in the weight's
                        format, at the power-of-two scale of their own amax (unscaled formats: 1)
Optimizer (``Δ = w' − w``, the update of the float32 master)
--------------------------------------------------------------------------------------------------
``update_nonfinite``    elements whose Δ is NaN or ±inf
``update_lost``         elements with 0 < |Δ| < S(w) / 2, where S is the gap between grid values
                        at ``w``, scale included: rounding to nearest would lose them if ``w`` lay
                        on the grid
======================  ==========================================================================

Where a tensor has a NaN or inf its amax gives no scale; the counts that need one are then NaN.
``all`` adds up the watched layers. Layers without a gradient have no gradient metrics.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.monitor import Observation, RunView, StepView
from altgrad_core.quantization.scaling import largest_magnitude, scale_for
from altgrad_plugins.monitors.layers import LayerMonitor, counts_and_rates
from altgrad_plugins.monitors.stability.inputs import InputProbe
from altgrad_plugins.monitors.stability.ranges import Range, known
from altgrad_plugins.monitors.stability.settings import OverflowSettings
from altgrad_plugins.monitors.tensors import nonfinite_count


class _Tally:
    """Counts by metric and layer, and the sizes they are of."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, Tensor]] = defaultdict(dict)
        self._sizes: dict[str, dict[str, int]] = defaultdict(dict)

    def add(self, metric: str, layer: str, count: Tensor, size: int) -> None:
        self._counts[metric][layer] = count
        self._sizes[metric][layer] = size

    def observation(self) -> Observation:
        metrics: dict[str, float | Tensor] = {}
        for metric, counts in self._counts.items():
            sizes = self._sizes[metric]
            metrics |= counts_and_rates("overflow", metric, f"{metric}_rate", counts, sizes)
        return Observation(metrics)


class OverflowMonitor(LayerMonitor):
    """``overflow/<layer>/<metric>``; see the module for what each one counts."""

    def __init__(self, settings: OverflowSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self._ranges: dict[str, Range] = {}
        self._inputs: InputProbe | None = None

    def start(self, run: RunView) -> Observation | None:
        """Find each format's range, and put hooks on the layers whose inputs are quantised."""
        super().start(run)
        self._ranges = {name: Range.of(run.weights[name].format) for name in self.layers}
        self._inputs = InputProbe(run.model, self.layers, lambda: self.due(run.step))
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Count in the forward and backward pass, and keep the old weights."""
        tally = _Tally()
        if self._inputs is not None:
            for name, (overflows, underflows, size) in self._inputs.take().items():
                tally.add("input_overflow", name, overflows, size)
                tally.add("input_underflow", name, underflows, size)
        for name in self.layers:
            geometry = step.weights[name]
            weight, held = step.weight_before(name), self._ranges[name]
            overflows, underflows = held.counts(weight, geometry.scale())
            tally.add("weight_overflow", name, overflows, weight.numel())
            tally.add("weight_underflow", name, underflows, weight.numel())
            gradient = geometry.parameter.grad
            if gradient is not None:
                lost = held.counts(gradient, _gradient_scale(gradient, geometry))[1]
                tally.add("gradient_nonfinite", name, nonfinite_count(gradient), weight.numel())
                tally.add("gradient_underflow", name, lost, weight.numel())
        return tally.observation()

    def after_update(self, step: StepView) -> Observation | None:
        """Count in the update."""
        tally = _Tally()
        for name in self.layers:
            geometry = step.weights[name]
            before = step.weight_before(name)
            update = geometry.parameter.detach() - before
            small = (update != 0) & (update.abs() < geometry.ulp(before) * 0.5)
            lost = known(torch.count_nonzero(small), geometry.scale())
            tally.add("update_nonfinite", name, nonfinite_count(update), update.numel())
            tally.add("update_lost", name, lost, update.numel())
        return tally.observation()

    def end(self, run: RunView) -> Observation | None:
        """Take the hooks off."""
        if self._inputs is not None:
            self._inputs.close()
        return None


def _gradient_scale(gradient: Tensor, geometry: WeightGeometry) -> Tensor:
    if not geometry.format.scaled:
        return torch.ones((), device=gradient.device)
    return scale_for(largest_magnitude(gradient), geometry.format, power_of_two=True)
