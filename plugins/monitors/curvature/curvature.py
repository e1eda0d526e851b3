"""Curvature of the loss in the quantised weights, and what it makes of their rounding.

``L`` is the float32 loss of a fixed probe batch (``RunView.probe_batch``, the same in all cells of
a seed) in a reference pass: eval mode, latent weights, nothing rounded. ``H`` is its Hessian with
respect to the watched weights that have a gradient, all together as one vector, at the weights
before the update.

==============================  ===================================================================
``eigenvalue_1``, ``…_2``, …    the largest eigenvalues of H, by sign; ``all`` only
``trace``                       tr H, of a layer that of its own block
``rounding_loss_nearest``       ½ Σ hᵢᵢ (ŵᵢ − wᵢ)², ŵ the nearest grid value: as it is rounded
``rounding_loss_stochastic``    ½ Σ hᵢᵢ Sᵢ² pᵢ (1 − pᵢ): the mean over stochastic roundings, where S
                                is the gap that w lies in, and p where in it
``rounding_loss_second_order``  ⟨∇L, δ⟩ + ½ δᵀ H δ with δ = ŵ − w of all watched weights: with the
                                slope and the off-diagonal that the diagonal leaves out; ``all``
                                only, and only where every watched weight has a master
``rounding_loss_measured``      loss of the same batch as training rounds it (activations and
                                autocast included), less L; ``all`` only
``…_error``                     of ``trace``, ``rounding_loss_nearest``, ``…_stochastic``: the
                                standard error of the estimate, the deviation over the probes
                                divided by the root of their number
==============================  ===================================================================

Eigenvalues and traces are in units of the loss per squared weight, the others in units of the loss.
Rounding errors that are independent and have mean zero make ``rounding_loss_stochastic`` exact to
second order for any H; to nearest the errors are fixed, and the diagonal is an approximation whose
quality ``second_order`` shows. A *resident* weight lies on its grid, so what is rounded is the
target of the update, ``u`` (without its compensation), in the place of ``w``.

Trace and diagonal are Hutchinson estimates: Bekas, Kokiopoulou & Saad, Appl. Numer. Math. 57 (2007)
1214-1229. Eigenvalues: implicitly restarted Lanczos (ARPACK). Random vectors come from a generator of
this monitor's own, seeded anew at each measurement: two measurements differ by the weights alone.

Memory: the graph of two backward passes, a copy of the watched weights for each probe, and for the
eigenvalues some 20 float64 vectors of their length on the host. The eigenvalue solver runs on the
host, so each of its products waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.monitor import Observation, StepView
from altgrad_plugins.monitors.curvature.hessian import Hessian, hutchinson, leading_eigenvalues
from altgrad_plugins.monitors.curvature.rounding import (
    expected_square,
    nearest_square,
    nearest_value,
)
from altgrad_plugins.monitors.curvature.settings import CurvatureSettings
from altgrad_plugins.monitors.layers import ALL, LayerMonitor, per_layer


@dataclass
class _Measured:
    """What one step's measurement keeps until after the update."""

    losses: dict[str, Tensor] = field(default_factory=dict)
    """Of the masters: rounding losses to nearest and stochastically, by probe: ``(2, probes)``."""
    diagonals: dict[str, Tensor] = field(default_factory=dict)
    """Of the resident weights, by probe."""


class CurvatureMonitor(LayerMonitor):
    """``curvature/<layer>/{eigenvalue_1, trace, rounding_loss_nearest, …}``."""

    waits = True  # the solver runs on the host

    def __init__(self, settings: CurvatureSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self.settings = settings
        self._measured = _Measured()

    def before_update(self, step: StepView) -> Observation | None:
        """Measure the Hessian, and the rounding of the masters."""
        self._measured = _Measured()
        weights = {name: step.weights[name] for name in self.layers}
        weights = {name: w for name, w in weights.items() if w.parameter.grad is not None}
        if not weights:
            return None
        chosen, batch = self.settings, step.probe_batch(self.settings.samples)
        with step.replay(batch) as rounded:
            measured = rounded.detach().double()
        generator = torch.Generator(step.device).manual_seed(chosen.seed)
        with step.replay(batch, reference=True) as loss:
            measured = measured - loss.detach().double()
            hessian = Hessian(loss, [geometry.parameter for geometry in weights.values()])
            diagonals = hutchinson(hessian, chosen.probes, generator)
            traces = torch.stack([_sums(part) for part in diagonals], 1)
            metrics = _estimates("trace", list(weights), traces)
            metrics |= self._eigenvalues(hessian, traces, generator)
            metrics |= _second_order(hessian, weights)
        metrics[f"curvature/{ALL}/rounding_loss_measured"] = measured
        for (name, geometry), diagonal in zip(weights.items(), diagonals, strict=True):
            if geometry.resident:
                step.weight_before(name)  # so that its target is kept
                self._measured.diagonals[name] = diagonal
            else:
                weight = geometry.parameter.detach()
                self._measured.losses[name] = _rounding_losses(geometry, weight, diagonal)
        return Observation(metrics)

    def after_update(self, step: StepView) -> Observation | None:
        """Add the rounding of the resident weights, which is of this update."""
        losses = self._measured.losses
        for name, diagonal in self._measured.diagonals.items():
            target = step.weight_intended(name)
            losses[name] = _rounding_losses(step.weights[name], target, diagonal)
        self._measured = _Measured()
        if not losses:
            return None
        nearest, stochastic = torch.stack(list(losses.values()), 2)
        metrics = _estimates("rounding_loss_nearest", list(losses), nearest)
        return Observation(
            metrics | _estimates("rounding_loss_stochastic", list(losses), stochastic)
        )

    def _eigenvalues(
        self, hessian: Hessian, traces: Tensor, generator: torch.Generator
    ) -> dict[str, float | Tensor]:
        chosen, values = self.settings, [float("nan")] * self.settings.eigenvalues
        finite, zero = torch.stack((traces.isfinite().all(), (traces == 0).all())).tolist()
        if finite and zero and _is_zero(hessian, generator):
            values = [0.0] * min(chosen.eigenvalues, hessian.size)
        elif finite and chosen.eigenvalues:
            values = leading_eigenvalues(
                hessian,
                chosen.eigenvalues,
                generator,
                tolerance=chosen.tolerance,
                restarts=chosen.restarts,
            )
        return {f"curvature/{ALL}/eigenvalue_{i}": value for i, value in enumerate(values, 1)}


def _is_zero(hessian: Hessian, generator: torch.Generator) -> bool:
    """Whether a random vector gives nothing, which then none does; Lanczos cannot start there."""
    vectors = [
        torch.randn(w.shape, dtype=w.dtype, device=w.device, generator=generator)
        for w in hessian.weights
    ]
    return not any(bool(product.any()) for product in hessian.product(vectors))


def _estimates(metric: str, layers: Sequence[str], samples: Tensor) -> dict[str, float | Tensor]:
    """The mean of ``samples``, ``(probes, layers)``, and its standard error: of each, and of all."""
    samples, layers = torch.cat((samples, samples.sum(1, keepdim=True)), 1), [*layers, ALL]
    error = samples.std(0) / len(samples) ** 0.5
    metrics = per_layer("curvature", metric, layers, samples.mean(0))
    return metrics | per_layer("curvature", f"{metric}_error", layers, error)


def _sums(samples: Tensor) -> Tensor:
    """The sum of each of the samples along dimension 0: float64."""
    return samples.flatten(1).sum(1, dtype=torch.float64)


def _second_order(
    hessian: Hessian, weights: Mapping[str, WeightGeometry]
) -> dict[str, float | Tensor]:
    """⟨∇L, δ⟩ + ½ δᵀ H δ, or nothing where a weight is resident."""
    if any(geometry.resident for geometry in weights.values()):
        return {}
    moves = [_move(geometry, geometry.parameter) for geometry in weights.values()]
    slope = _inner(hessian.gradient, moves)
    value = slope + 0.5 * _inner(hessian.product(moves), moves)
    return {f"curvature/{ALL}/rounding_loss_second_order": value}


def _move(geometry: WeightGeometry, weight: nn.Parameter) -> Tensor:
    return nearest_value(geometry, weight.detach()) - weight.detach()


def _inner(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """The inner product of two vectors in pieces: float64, 0-d."""
    products = torch._foreach_mul(list(first), list(second))
    return torch.stack([product.sum(dtype=torch.float64) for product in products]).sum()


def _rounding_losses(geometry: WeightGeometry, weight: Tensor, diagonals: Tensor) -> Tensor:
    """½ Σ hᵢᵢ e for the squared errors e to nearest and of stochastic rounding: ``(2, probes)``."""
    rows = []
    for square in (nearest_square(geometry, weight), expected_square(geometry, weight)):
        rows.append(torch.stack([0.5 * (h.double() * square).sum() for h in diagonals]))
    return torch.stack(rows)
