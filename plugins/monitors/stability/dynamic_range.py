"""Dynamic range: how large the numbers of a layer are, how far apart, and where they lie on the grid.

For the weight ``w`` of a layer before the update, with scale ``s``, and its gradient ``g`` as the
optimizer gets it; ``M`` is the last grid value on the side of zero where ``w`` is:

====================  =================================================  ==========================
``weight_amax_ema``   moving average of max |w| (likewise                units of the weight, of the
                      ``gradient_amax_ema`` of max |g|)                  gradient
``weight_log2_pQ``    Q-th percentile of log2(w / (s M)): 0 is the end   binades below the end,
                      of the grid                                        negative
``gradient_log2_pQ``  Q-th percentile of log2 |g|                        log2 of the gradient's unit
``weight_binades``    log2(max |w| / min |w|) over the non-zero          binades
                      elements (likewise ``gradient_binades``)
====================  =================================================  ==========================

The moving average starts at the first value and then takes ``1 − 2^(−Δ / half_life)`` of each new
one, Δ steps after the last. An amax that is not finite is left out, and so are layers without a
gradient.

Percentiles are over finite, non-zero elements (of weights, those on a side where the grid has
values), interpolated linearly between neighbours, and named
``p50`` or, for 99.9, ``p99_9``. A tensor with more than ``samples`` elements is represented by
every k-th, with k the smallest stride that is large enough and shares no factor with the row
length, so that no column is left out. With N of them the sample's Q-th percentile is, with 99 % confidence, a
percentile of the tensor no further than 163 / sqrt(N) points from Q (Massart 1990), if magnitudes do not
depend on the position; for N = 4096 that is 2.5 points.

``all`` is the largest over the watched layers; percentiles have none. What needs a scale or has no
finite, non-zero element is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Observation, RunView, StepView
from altgrad_plugins.monitors.formats import PerFormat
from altgrad_plugins.monitors.geometry.ladders import ends
from altgrad_plugins.monitors.layers import ALL, LayerMonitor, per_layer
from altgrad_plugins.monitors.stability.settings import RangeSettings
from altgrad_plugins.monitors.tensors import largest


class RangeMonitor(LayerMonitor):
    """``range/<layer>/<role>_{amax_ema, log2_p…, binades}`` for weights and gradients."""

    def __init__(self, settings: RangeSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self._half_life = settings.half_life
        self._samples = settings.samples
        self._percentiles = settings.percentiles
        self._ends = PerFormat(ends)
        self._shares = torch.empty(0)
        self._device = torch.device("cpu")
        self._averages: dict[str, Tensor] = {}
        self._measured = 0

    def start(self, run: RunView) -> Observation | None:
        """Choose the layers; what is the same at all measurements goes to the device now."""
        super().start(run)
        self._device = run.device
        shares = [percent / 100 for percent in self._percentiles]
        self._shares = torch.tensor(shares, device=run.device)
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Measure weights and gradients."""
        if not self.layers:
            return None
        weights = {name: step.weights[name].parameter.detach() for name in self.layers}
        gradients = {n: g for n in weights if (g := step.weights[n].parameter.grad) is not None}
        decay = 2.0 ** ((self._measured - step.step) / self._half_life)
        metrics: dict[str, float | Tensor] = {}
        samples = [self._weight_sample(step, name, weight) for name, weight in weights.items()]
        samples += [log2_magnitude(strided(g, self._samples)) for g in gradients.values()]
        percentiles = self._percentiles_of(samples)
        for role, tensors in (("weight", weights), ("gradient", gradients)):
            if not tensors:
                continue
            amax, names = largest(list(tensors.values())), list(tensors)
            averages = self._averaged(role, names, amax, decay)
            metrics |= _column(f"{role}_amax_ema", names, averages)
            metrics |= _column(f"{role}_binades", names, binades(list(tensors.values()), amax))
            own, percentiles = percentiles[:, : len(names)], percentiles[:, len(names) :]
            for percent, values in zip(self._percentiles, own.unbind(), strict=True):
                metrics |= per_layer("range", f"{role}_log2_{_label(percent)}", names, values)
        self._measured = step.step
        return Observation(metrics)

    def state_dict(self) -> dict[str, Any]:
        """The moving averages, and the step that they are of."""
        return {"averages": dict(self._averages), "measured": self._measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        averages = state["averages"]
        self._averages = {key: average.to(self._device) for key, average in averages.items()}
        self._measured = state["measured"]

    def _weight_sample(self, step: StepView, name: str, weight: Tensor) -> Tensor:
        geometry = step.weights[name]
        grid = strided((weight / geometry.scale()).expand_as(weight), self._samples)
        lowest, highest = self._ends(name, geometry.format)
        below = math.log2(-lowest) if lowest else math.nan
        return log2_magnitude(grid) - torch.where(grid < 0, below, math.log2(highest))

    def _percentiles_of(self, samples: Sequence[Tensor]) -> Tensor:
        """Shape ``(percentiles, samples)``."""
        table = torch.nn.utils.rnn.pad_sequence(
            list(samples), batch_first=True, padding_value=math.nan
        )
        return torch.nanquantile(table, self._shares.to(table.dtype), dim=1)

    def _averaged(self, role: str, names: Sequence[str], amax: Tensor, decay: float) -> Tensor:
        unknown = torch.full((), math.nan, dtype=amax.dtype, device=amax.device)
        old = torch.stack([self._averages.get(f"{role}/{name}", unknown) for name in names])
        new = torch.where(old.isnan(), amax, decay * old + (1 - decay) * amax)
        new = torch.where(amax.isfinite(), new, old)
        keys = (f"{role}/{name}" for name in names)
        self._averages.update(zip(keys, new.unbind(), strict=True))
        return new


def strided(x: Tensor, most: int) -> Tensor:
    """At most ``most`` elements of ``x``, flat, at a fixed stride that leaves no column out."""
    stride = math.ceil(x.numel() / most)
    while stride > 1 and math.gcd(stride, x.shape[-1]) > 1:
        stride += 1
    return x.flatten()[:: max(stride, 1)]


def log2_magnitude(x: Tensor) -> Tensor:
    """``log2 |x|`` of each element, and NaN for zeros and what is not finite."""
    logarithm = x.detach().abs().log2()
    return torch.where(logarithm.isfinite(), logarithm, math.nan)


def binades(tensors: Sequence[Tensor], amax: Tensor) -> Tensor:
    """``log2`` of largest over smallest non-zero magnitude, for each tensor; ``amax`` is the largest."""
    smallest = [torch.where(x == 0, math.inf, x).abs().amin() for x in tensors]
    span = amax.log2() - torch.stack(smallest).log2()
    return torch.where(span.isfinite(), span, math.nan)


def _column(metric: str, names: Sequence[str], values: Tensor) -> Mapping[str, float | Tensor]:
    return per_layer("range", metric, [*names, ALL], torch.cat((values, values.amax().view(1))))


def _label(percent: float) -> str:
    return f"p{percent:g}".replace(".", "_")
