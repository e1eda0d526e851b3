"""Clips each layer's gradient so that the many small entries fit on the grid below the few large ones.

A format spans ``B = log2(max_finite / m)`` binades, with ``m`` its smallest positive value (or the smallest
magnitude of its negative ones, if that is larger), and a tensor that is scaled by its
amax has its largest entry at the top of them: entries more than ``B`` binades below it are lost.
One outlier can therefore push a whole gradient below the grid. So, in every step, for the gradient
``g`` of each watched layer (a partition of its own, with a threshold of its own)::

    T = median(|g|, over non-zero entries) · 2^(B − margin)        g ← sign(g) · min(|g|, T)

After that, at a power-of-two scale, the median is at least ``2^margin`` times what rounds to zero:
with ``margin = 1``, the default, it is at least the smallest positive grid value. ``B`` is that of
the weight's format at the time: 7.0 for e0m7, 10.9 for e3m4, 31.8 for e5m2, so that formats with a wide range
hardly ever clip. Entries that are NaN or inf stay, for others to see. The median is the lower one
of every k-th entry where there are more than ``samples`` (see ``strided``). This comes after the clipping of
the total norm (``training.max_grad_norm``) and before other monitors measure.

``clip/<layer>/<metric>``:

=============  =======================================================  =====================
``clipped``    entries clipped since the start of the run               count
``threshold``  T of this step; NaN if all entries are 0 (no ``all``)    that of the gradient
=============  =======================================================  =====================

Event ``gradient_clipped``: the first report of each layer that has had entries clipped.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Event, Observation, RunView, StepView
from altgrad_plugins.monitors.formats import PerFormat
from altgrad_plugins.monitors.geometry.ladders import sign_bounds
from altgrad_plugins.monitors.interventions.settings import GradientClipSettings
from altgrad_plugins.monitors.layers import ALL, LayerMonitor, per_layer, with_total
from altgrad_plugins.monitors.stability.alarms import Alarms
from altgrad_plugins.monitors.stability.dynamic_range import strided

GRADIENT_CLIPPED = "gradient_clipped"


class GradientClipMonitor(LayerMonitor):
    """``clip/<layer>/{clipped, threshold}``; event ``gradient_clipped``, once for each layer."""

    intervenes = True
    waits = True  # events of clipped gradients

    def __init__(self, settings: GradientClipSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self._margin, self._samples = settings.margin, settings.samples
        self._binades = PerFormat(span)
        self._clipped: dict[str, Tensor] = {}
        self._alarms = Alarms()

    def due(self, step: int) -> bool:
        """In every step: a gradient that is not clipped now is applied."""
        return True

    def start(self, run: RunView) -> Observation | None:
        """Nothing has been clipped yet."""
        super().start(run)
        zero = torch.zeros((), dtype=torch.int64, device=run.device)
        self._clipped = dict.fromkeys(self.layers, zero)
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Clip, and at the interval report. The report reads the counts."""
        thresholds = {}
        for name in self.layers:
            gradient = step.weights[name].parameter.grad
            if gradient is not None:
                binades = self._binades(name, step.weights[name].format)
                limit = threshold(gradient, binades - self._margin, self._samples)
                self._clipped[name] = self._clipped[name] + clip(gradient, limit)
                thresholds[name] = limit
        if not self.layers or not super().due(step.step):
            return None
        totals = with_total(torch.stack([self._clipped[name] for name in self.layers]))
        metrics = per_layer("clip", "clipped", [*self.layers, ALL], totals)
        metrics |= {f"clip/{name}/threshold": limit for name, limit in thresholds.items()}
        return Observation(metrics, self._events(totals.tolist(), step.step))

    def state_dict(self) -> dict[str, Any]:
        """Entries clipped so far, and which events were raised."""
        clipped = {name: int(count) for name, count in self._clipped.items()}
        return {"clipped": clipped, "raised": self._alarms.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        for name, count in state["clipped"].items():
            self._clipped[name] = torch.full_like(self._clipped[name], count)
        self._alarms.load(state["raised"])

    def _events(self, totals: list[float], step: int) -> list[Event]:
        return self._alarms.new(
            Event(GRADIENT_CLIPPED, name, f"{total:.0f} gradient entries clipped by step {step}")
            for name, total in zip(self.layers, totals, strict=False)
            if total
        )


def span(fmt: Format) -> float:
    """B of the module: the binades of ``fmt`` on the side of zero where they are fewer."""
    below, above = fmt.from_rung(torch.tensor(sign_bounds(fmt))).tolist()
    return math.log2(fmt.max_finite) - math.log2(max(-below, above))


def threshold(gradient: Tensor, binades: float, samples: int) -> Tensor:
    """``2^binades`` times the median, 0-d, on the device; NaN if no entry is finite and not 0."""
    magnitude = strided(gradient, samples).abs()
    counted = torch.where((magnitude > 0) & magnitude.isfinite(), magnitude, math.nan)
    # In order, NaN last, so that the host need not know how many there are, as nanmedian does.
    ordered = counted.flatten().sort().values
    lower = (ordered.isfinite().sum() - 1).clamp_(min=0) // 2
    return ordered.gather(0, lower[None])[0] * math.exp2(binades)


def clip(gradient: Tensor, limit: Tensor) -> Tensor:
    """Clip the finite entries in place; how many there were, 0-d. NaN is no limit."""
    beyond = (gradient.abs() > limit) & gradient.isfinite()
    gradient.copy_(torch.where(beyond, torch.copysign(limit, gradient), gradient))
    return torch.count_nonzero(beyond)
