"""Overflow and underflow: what is too large or too small for the format, at each stage of a step.

Counts over the ``n`` elements of a tensor; each has a ``..._rate``, the count divided by ``n``. A
value ``x`` with scale ``s`` *overflows* when ``x / s`` lies beyond the last grid value on its side of
zero (beyond zero, where the grid has none there), and *underflows* when ``x ≠ 0`` but ``x / s`` rounds
to zero (to nearest).

=============================  ===================================================================
Forward (the scale is the one in force)
--------------------------------------------------------------------------------------------------
``weight_overflow``            overflows among the weights before the update
``weight_underflow``           underflows among them
``weight_subnormal``           weights whose grid value is not zero but smaller than the format's
                               smallest normal value. All that are not zero, in a format without
                               exponent (e0m7); none in one without mantissa (e7m0). Not reported
                               for formats that are only a table, which have no normal values
``input_overflow``             overflows among the inputs of the layer, where they are quantised
``input_underflow``            underflows among them
Backward
--------------------------------------------------------------------------------------------------
``gradient_nonfinite``         weight gradients that are NaN or ±inf
``gradient_underflow``         underflows among the weight gradients if they were held in the
                               weight's format, at the power-of-two scale of their own amax,
                               headroom of the format included (unscaled formats: 1)
``output_gradient_overflow``   overflows among the gradients at the output of the layer, where they
                               are quantised: in their own format, under the scale that they get
``output_gradient_underflow``  underflows among them
Optimizer (``Δ = u − w``, the intended update; ``u`` as the optimizer wants it, before it is rounded)
--------------------------------------------------------------------------------------------------
``update_nonfinite``           elements whose Δ is NaN or ±inf
``update_lost``                elements with 0 < |Δ| < S(w) / 2, where S is the gap between grid
                               values at ``w`` before the update, under the scale of the step:
                               rounding to nearest would lose them if ``w`` lay on the grid.
                               (What a format that rounds by another rule would lose, posits
                               say, is ``stalls/…/predicted``)
=============================  ===================================================================

Where a tensor has a NaN or inf its amax gives no scale; the counts that need one are then NaN.
``all`` adds up the watched layers. Layers without a gradient have no gradient metrics.

Events, once for each layer, when a rate exceeds ``overflow_rate`` or ``underflow_rate``:
``overflow_forward`` and ``underflow_forward`` (of weight or input), ``overflow_backward`` (of the
output gradient) and ``underflow_backward`` (of weight gradient or output gradient).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.monitor import Event, Observation, RunView, StepView
from altgrad_core.quantization.scaling import own_scale
from altgrad_plugins.monitors.formats import PerFormat
from altgrad_plugins.monitors.layers import ALL, LayerMonitor, counts_and_rates
from altgrad_plugins.monitors.stability import alarms
from altgrad_plugins.monitors.stability.probes import (
    RoleProbe,
    watch_inputs,
    watch_output_gradients,
)
from altgrad_plugins.monitors.stability.ranges import Range, first_normal_rung, known
from altgrad_plugins.monitors.stability.settings import OverflowSettings
from altgrad_plugins.monitors.tensors import nonfinite_count

_KINDS = {
    "weight_overflow_rate": alarms.OVERFLOW_FORWARD,
    "input_overflow_rate": alarms.OVERFLOW_FORWARD,
    "weight_underflow_rate": alarms.UNDERFLOW_FORWARD,
    "input_underflow_rate": alarms.UNDERFLOW_FORWARD,
    "output_gradient_overflow_rate": alarms.OVERFLOW_BACKWARD,
    "gradient_underflow_rate": alarms.UNDERFLOW_BACKWARD,
    "output_gradient_underflow_rate": alarms.UNDERFLOW_BACKWARD,
}
"""The rates that raise events, and the kinds of those."""


class _Tally:
    """Counts by metric and layer, and the sizes they are of."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, Tensor]] = defaultdict(dict)
        self._sizes: dict[str, dict[str, int]] = defaultdict(dict)

    def add(self, metric: str, layer: str, count: Tensor, size: int) -> None:
        self._counts[metric][layer] = count
        self._sizes[metric][layer] = size

    def metrics(self) -> dict[str, float | Tensor]:
        metrics: dict[str, float | Tensor] = {}
        for metric, counts in self._counts.items():
            sizes = self._sizes[metric]
            metrics |= counts_and_rates("overflow", metric, f"{metric}_rate", counts, sizes)
        return metrics


@dataclass(frozen=True)
class _Known:
    """What is worked out once for a format."""

    range: Range
    normal: float | None

    @classmethod
    def of(cls, fmt: Format) -> _Known:
        return cls(Range.of(fmt), first_normal_rung(fmt))


class OverflowMonitor(LayerMonitor):
    """``overflow/<layer>/<metric>``; see the module for what each one counts."""

    def __init__(self, settings: OverflowSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self._limits = {
            metric: limit
            for metric in _KINDS
            if (limit := settings.underflow_rate if "under" in metric else settings.overflow_rate)
        }
        self.waits = bool(self._limits)  # events
        self._alarms = alarms.Alarms()
        self._known = PerFormat(_Known.of)
        self._inputs: RoleProbe | None = None
        self._output_gradients: RoleProbe | None = None

    def start(self, run: RunView) -> Observation | None:
        """Put hooks on the layers whose inputs or gradients are quantised."""
        super().start(run)
        self._inputs = watch_inputs(run.model, self.layers, lambda: self.due(run.step))
        self._output_gradients = watch_output_gradients(
            run.model, self.layers, lambda: self.due(run.step)
        )
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Count in the forward and backward pass, and keep the old weights."""
        tally = _Tally()
        for role, probe in (("input", self._inputs), ("output_gradient", self._output_gradients)):
            for name, (overflows, underflows, size) in (
                {} if probe is None else probe.take()
            ).items():
                tally.add(f"{role}_overflow", name, overflows, size)
                tally.add(f"{role}_underflow", name, underflows, size)
        for name in self.layers:
            step.ulp_before(name)
            self._count_weight(tally, step, name)
            self._count_gradient(tally, step.weights[name], name)
        metrics = tally.metrics()
        return Observation(metrics, self._events(metrics, step.step))

    def after_update(self, step: StepView) -> Observation | None:
        """Count in the update."""
        tally = _Tally()
        for name in self.layers:
            gap = step.ulp_before(name)
            update = step.weight_intended(name) - step.weight_before(name)
            small = (update != 0) & (update.abs() < gap * 0.5)
            lost = known(torch.count_nonzero(small), gap)
            tally.add("update_nonfinite", name, nonfinite_count(update), update.numel())
            tally.add("update_lost", name, lost, update.numel())
        return Observation(tally.metrics())

    def end(self, run: RunView) -> Observation | None:
        """Take the hooks off."""
        for probe in (self._inputs, self._output_gradients):
            if probe is not None:
                probe.close()
        return None

    def state_dict(self) -> dict[str, Any]:
        """Which events were raised."""
        return {"raised": self._alarms.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        self._alarms.load(state["raised"])

    def _count_weight(self, tally: _Tally, step: StepView, name: str) -> None:
        geometry, weight = step.weights[name], step.weight_before(name)
        held = self._known(name, geometry.format)
        overflows, underflows = held.range.counts(weight, geometry.scale())
        tally.add("weight_overflow", name, overflows, weight.numel())
        tally.add("weight_underflow", name, underflows, weight.numel())
        if held.normal is not None:
            height = step.rung_before(name).abs()
            subnormal = torch.count_nonzero((height > 0) & (height < held.normal))
            tally.add("weight_subnormal", name, known(subnormal, geometry.scale()), weight.numel())

    def _count_gradient(self, tally: _Tally, geometry: WeightGeometry, name: str) -> None:
        gradient = geometry.parameter.grad
        if gradient is not None:
            held = self._known(name, geometry.format).range
            lost = held.counts(gradient, own_scale(gradient, geometry.format))[1]
            tally.add("gradient_nonfinite", name, nonfinite_count(gradient), gradient.numel())
            tally.add("gradient_underflow", name, lost, gradient.numel())

    def _events(self, metrics: Mapping[str, float | Tensor], step: int) -> list[Event]:
        """Rates beyond their limits. Reads the rates: one transfer, in the interval."""
        watched: list[tuple[str, str, Tensor]] = []
        for key, value in metrics.items():
            _, layer, metric = key.split("/")
            if metric in self._limits and layer != ALL and isinstance(value, Tensor):
                watched.append((layer, metric, value))
        if not watched:
            return []
        rates = torch.stack([value for *_, value in watched]).tolist()
        return self._alarms.new(
            Event(
                _KINDS[metric],
                layer,
                f"{metric} {rate:.3g} at step {step}, more than {self._limits[metric]:g}",
            )
            for (layer, metric, _), rate in zip(watched, rates, strict=True)
            if rate > self._limits[metric]
        )
