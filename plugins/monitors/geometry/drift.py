"""Drift: how far the weights have come since the start, in rungs of their ladders.

The position ``b(w)`` of a weight is its rung and the way to it from there, as a real number
(``altgrad_core.quantization.geometry.latent_position``); ``b₀`` is that of the same weight before the
first update. After the update:

===============  ===============================================================  =====
``mean``         mean of |b − b₀|                                                 rungs
``rms``          sqrt(mean (b − b₀)²)                                             rungs
``beyond_rung``  share of the weights with |b − b₀| > 1                           –
``scale_shift``  mean of log2(s / s₀), the scale now and then                     log2
===============  ===============================================================  =====

Each position is taken under the scale of its time, so a change of scale counts as movement, as it does in
the stored bits: with a doubled scale every normal value of a format with M mantissa bits lies 2^M rungs
lower, and on a uniform grid every rung is halved. Where ``scale_shift`` is 0 the drift is the weights'
own.

Starting positions are kept in fixed point, to 1/512 of a rung, in 2 bytes per weight (4 for ladders with
more than 127 rungs on a side), on the weight's device and in checkpoints. A weight that is moved to another format
starts anew there. ``all`` is over the weights of all watched layers. A NaN or inf makes a layer NaN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.monitor import Observation, RunView, StepView
from altgrad_core.quantization.geometry import latent_position
from altgrad_core.quantization.kernels.position import pack, unpack
from altgrad_plugins.monitors.geometry.ladders import grid_key
from altgrad_plugins.monitors.geometry.settings import DriftSettings
from altgrad_plugins.monitors.geometry.statistics import columns, size_shares, spoilt
from altgrad_plugins.monitors.layers import ALL, LayerMonitor

_METRICS = ("mean", "rms", "beyond_rung", "scale_shift")


class DriftMonitor(LayerMonitor):
    """``drift/<layer>/{mean, rms, beyond_rung, scale_shift}``, after the update."""

    def __init__(self, settings: DriftSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self._starts: dict[str, dict[str, Any]] = {}
        self._shares = torch.empty(0)
        self._device = torch.device("cpu")

    def start(self, run: RunView) -> Observation | None:
        """Choose the layers and weigh them."""
        super().start(run)
        self._shares = size_shares(run.weights, self.layers)
        self._device = run.device
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Keep where the weights stand, the first time and on a new ladder."""
        for name in self.layers:
            geometry = step.weights[name]
            grid = grid_key(geometry.format)
            if self._starts.get(name, {}).get("grid") != grid:
                position = latent_position(geometry, geometry.parameter.detach())
                self._starts[name] = {
                    "grid": grid,
                    "position": pack(position, geometry.format),
                    "scale": _mean_log2_scale(geometry),
                }
        return None

    def after_update(self, step: StepView) -> Observation | None:
        """Measure the way from there."""
        if not self.layers:
            return None
        rows = torch.stack([self._row(step.weights[name], name) for name in self.layers])
        rows = torch.cat((rows, (rows * self._shares).sum(0, keepdim=True)))
        rows[:, 1].sqrt_()
        return Observation(columns("drift", _METRICS, [*self.layers, ALL], rows))

    def state_dict(self) -> dict[str, Any]:
        """Where each layer started: grid, packed positions, mean log2 of the scale."""
        return {"starts": {name: dict(start) for name, start in self._starts.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        self._starts = {
            name: {
                "grid": start["grid"],
                "position": start["position"].to(self._device),
                "scale": start["scale"].to(self._device),
            }
            for name, start in state["starts"].items()
        }

    def _row(self, geometry: WeightGeometry, name: str) -> Tensor:
        """The metrics of one layer, with the mean square instead of its root."""
        start = self._starts[name]
        position = latent_position(geometry, geometry.parameter.detach()).to(torch.float64)
        way = (position - unpack(start["position"], geometry.format)).abs_()
        shift = _mean_log2_scale(geometry) - start["scale"]
        beyond = torch.count_nonzero(way > 1).to(torch.float64) / way.numel()
        return torch.stack((way.mean(), way.square().mean(), beyond, shift)) + spoilt(way)


def _mean_log2_scale(geometry: WeightGeometry) -> Tensor:
    """Over the weights; the scale broadcasts against them, each part standing for as many."""
    return geometry.scale().to(torch.float64).log2().mean()
