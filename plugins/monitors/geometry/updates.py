"""Updates: how much of what the optimizer wants reaches the weights that the forward pass sees.

``w`` is a weight before the update, ``u`` where the optimizer wanted it, and ``d = u − w`` the intended
update. The realised one, ``r``, is the change of the value that the forward pass uses: of a resident weight
``w' − w``, where ``w'`` is ``u`` rounded back to the grid (and a change of scale is part of it); of a master
``v(u) − v(w)``, the difference of the two roundings to nearest under the scale of the step. Sums are
over the weights of a layer:

===============  ==============================================================  ====
``quality``      Σ r d / Σ d²: 1 where all of the update arrives, 0 where it     –
                 all stalls
``cosine``       Σ r d / sqrt(Σ r² Σ d²); NaN where nothing moved                –
``snr_db``       10 log10(Σ d² / Σ (r − d)²): signal to error                    dB
``sr_snr_db``    10 log10(Σ d² / Σ q) with q = (u − v₁)(v₂ − u), the variance    dB
                 of ``u`` rounded stochastically to its neighbours v₁, v₂
===============  ==============================================================  ====

``q = S² p (1 − p)`` with p the way from one neighbour to the other. It is what stochastic rounding
would do to this update, whether it is on or not, and has no error in the mean; beyond the ends of the
grid, and on a grid value, it is 0. Values are in dB, so 0 is noise as large as the update and inf is no
noise at all.

A master loses nothing: what its forward pass does not see now it may see later. For it these numbers
tell how much arrives at once, and ``sr_snr_db`` what rounding the new master stochastically would add. ``u``
does not have what Kahan compensation adds; ``w'`` does. ``all`` takes the sums over all watched layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.monitor import Observation, StepView
from altgrad_plugins.monitors.geometry.ladders import intended_rung
from altgrad_plugins.monitors.geometry.settings import UpdatesSettings
from altgrad_plugins.monitors.geometry.statistics import columns, decibels
from altgrad_plugins.monitors.layers import ALL, LayerMonitor

_METRICS = ("quality", "cosine", "snr_db", "sr_snr_db")


class UpdatesMonitor(LayerMonitor):
    """``updates/<layer>/{quality, cosine, snr_db, sr_snr_db}``, of the observed step."""

    def __init__(self, settings: UpdatesSettings) -> None:
        super().__init__(settings.interval, settings.layers)

    def before_update(self, step: StepView) -> Observation | None:
        """Keep the old weights, and of masters the old rungs."""
        for name in self.layers:
            step.weight_before(name)
            if not step.weights[name].resident:
                step.rung_before(name)
        return None

    def after_update(self, step: StepView) -> Observation | None:
        """Compare what was wanted with what came of it."""
        if not self.layers:
            return None
        sums = torch.stack([_sums(step, name) for name in self.layers])
        sums = torch.cat((sums, sums.sum(0, keepdim=True)))
        dd, rr, rd, error, noise = sums.unbind(1)
        rows = (rd / dd, rd / (rr * dd).sqrt(), decibels(dd, error), decibels(dd, noise))
        return Observation(
            columns("updates", _METRICS, [*self.layers, ALL], torch.stack(rows, dim=1))
        )


def _sums(step: StepView, name: str) -> Tensor:
    """Σ d², Σ r², Σ r d, Σ (r − d)² and Σ q of one layer: float64, ``(5,)``."""
    geometry = step.weights[name]
    intended, rung = step.weight_intended(name), intended_rung(step, name)
    before, nearest = step.weight_before(name), geometry.value(rung)
    if geometry.resident:
        realised = geometry.parameter.detach().double() - before.double()
    else:
        realised = nearest.double() - geometry.value(step.rung_before(name)).double()
    wanted = intended.double() - before.double()
    noise = stochastic_variance(geometry, intended, rung, nearest)
    pairs = ((wanted, wanted), (realised, realised), (realised, wanted))
    sums = [torch.dot(x.flatten(), y.flatten()) for x, y in pairs]
    return torch.stack((*sums, (realised - wanted).square_().sum(), noise.sum()))


def stochastic_variance(
    geometry: WeightGeometry, weight: Tensor, rung: Tensor, nearest: Tensor
) -> Tensor:
    """The variance (float64) of each weight if it were rounded stochastically.

    ``nearest`` is the grid value on its ``rung``. The rung on the other side of the weight has the
    other neighbour; beyond the ends of the grid it is the same one, and the product is no variance.
    """
    other = rung + (weight > nearest).to(torch.int32) - (weight < nearest).to(torch.int32)
    weight = weight.double()
    neighbour = geometry.value(other).double()
    return ((weight - nearest.double()) * (neighbour - weight)).clamp_(min=0)
