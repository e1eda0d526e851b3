"""What rounding does to the gradient: against a float32 pass of the same weights and batch.

``g`` is the gradient as the optimizer gets it, ``r`` that of the reference pass: float32, without
autocast, latent weights, nothing rounded (``StepView.reference_gradients``), with the dropout masks
of the step. Sums are taken in float64.

====================  ===================================================================  =====
``cosine``            ⟨g, r⟩ / (‖g‖ ‖r‖)                                                   –
``relative_error``    ‖g − r‖ / ‖r‖                                                        –
``snr``               10 log₁₀(‖r‖² / ‖g − r‖²) = −20 log₁₀ relative_error                 dB
``aligned_snr``       10 log₁₀(c² / (1 − c²)) with c the cosine: the SNR of ``g`` as a     dB
                      multiple of ``r``, whatever its length; blind to the sign
``norm_ratio``        ‖g‖ / ‖r‖                                                            –
====================  ===================================================================  =====

Layers are the watched weights that have a gradient; ``all`` takes them as one vector. Where ``r``
is zero the ratios are NaN or inf; where ``g = r`` the SNR is inf.

*Clipping.* With ``training.max_grad_norm`` the gradients of a step may have been scaled by one
factor before they are seen here. ``relative_error``, ``snr`` and ``norm_ratio`` are given raw and
contain it; ``cosine`` and ``aligned_snr`` do not depend on it. *Dropout* inside of a fused
attention kernel (on CUDA) draws other masks than the reference kernel: with attention dropout its
noise is part of the error.

An event ``gradient_misaligned`` names each layer, once, whose cosine falls to ``misaligned`` (0) or
below: its gradient then is no direction of descent of the float32 loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Event, Observation, StepView
from altgrad_plugins.monitors.gradients.settings import GradientErrorSettings
from altgrad_plugins.monitors.layers import ALL, LayerMonitor, per_layer

GRADIENT_MISALIGNED = "gradient_misaligned"
"""Kind of the event: a gradient points away from that of the float32 pass."""


class GradientErrorMonitor(LayerMonitor):
    """``gradient_error/<layer>/{cosine, relative_error, …}``, before the update."""

    waits = True  # events of misaligned gradients

    def __init__(self, settings: GradientErrorSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self.misaligned = settings.misaligned
        self._told: list[str] = []

    def before_update(self, step: StepView) -> Observation | None:
        """Compare; the cosines are read at once, for the event."""
        named = {name: step.weights[name].parameter.grad for name in self.layers}
        gradients = {name: grad for name, grad in named.items() if grad is not None}
        if not gradients:
            return None
        reference = step.reference_gradients()
        layers = [name for name in gradients if name in reference]
        if not layers:
            return None
        products = torch.stack([_products(gradients[n], reference[n]) for n in layers])
        found = _compare(torch.cat((products, products.sum(0, keepdim=True))))
        names = [*layers, ALL]
        metrics: dict[str, float | Tensor] = {}
        for metric, values in found.items():
            metrics |= per_layer("gradient_error", metric, names, values)
        return Observation(metrics, self._events(layers, found["cosine"].tolist()))

    def state_dict(self) -> dict[str, Any]:
        """The layers that were told of."""
        return {"told": list(self._told)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        self._told = list(state["told"])

    def _events(self, layers: Sequence[str], cosines: Sequence[float]) -> list[Event]:
        events = []
        for name, cosine in zip(layers, cosines, strict=False):
            if cosine <= self.misaligned and name not in self._told:
                self._told.append(name)
                message = (
                    f"the cosine between the gradient and that of the float32 pass is {cosine:.3g}, "
                    f"not above {self.misaligned:g}"
                )
                events.append(Event(GRADIENT_MISALIGNED, name, message))
        return events


def _products(gradient: Tensor, reference: Tensor) -> Tensor:
    """⟨g, r⟩, ‖g‖², ‖r‖², ‖g − r‖²: float64, shape ``(4,)``."""
    g, r = gradient.detach().flatten().double(), reference.flatten().double()
    d = g - r
    return torch.stack((g @ r, g @ g, r @ r, d @ d))


def _compare(products: Tensor) -> dict[str, Tensor]:
    """The metrics, each of shape ``(L,)``, from rows of :func:`_products`."""
    dot, own, reference, error = products.unbind(1)
    # Cauchy-Schwarz, which rounding may break: g = r has neither a cosine above 1 nor a rest below 0.
    cosine = (dot / (own.sqrt() * reference.sqrt())).clamp(-1, 1)
    rest = 1 - cosine.square()
    return {
        "cosine": cosine,
        "relative_error": (error / reference).sqrt(),
        "snr": 10 * torch.log10(reference / error),
        "aligned_snr": 10 * torch.log10(cosine.square() / rest),
        "norm_ratio": (own / reference).sqrt(),
    }
