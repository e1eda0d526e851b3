"""Gradient norms, as the optimizer gets them (after clipping, where that is on).

=============  ======================================================
``l2``         ‖g‖₂ = sqrt(Σ g²), accumulated in float64
``linf``       ‖g‖_∞ = max |g|
``nonfinite``  count of entries that are NaN or ±inf
=============  ======================================================

Layers are the quantised weights that are watched; ``all`` is over every parameter of the model that
has a gradient, quantised or not, whatever ``layers`` says. Units: those of the gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Observation, StepView
from altgrad_plugins.monitors.gradients.settings import GradientsSettings
from altgrad_plugins.monitors.layers import ALL, LayerMonitor
from altgrad_plugins.monitors.tensors import largest, nonfinite_count


class GradientsMonitor(LayerMonitor):
    """``gradients/<layer>/{l2, linf, nonfinite}``, before the update."""

    def __init__(self, settings: GradientsSettings) -> None:
        super().__init__(settings.interval, settings.layers)

    def before_update(self, step: StepView) -> Observation | None:
        """Read the gradients."""
        named = {n: p.grad for n, p in step.model.named_parameters() if p.grad is not None}
        if not named:
            return None
        gradients = list(named.values())
        l2 = torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float64))
        linf = largest(gradients)
        nonfinite = torch.stack([nonfinite_count(gradient) for gradient in gradients])
        totals = {
            "l2": torch.linalg.vector_norm(l2),
            "linf": linf.amax(),
            "nonfinite": nonfinite.sum(),
        }
        metrics: dict[str, float | Tensor] = {
            f"gradients/{ALL}/{metric}": total for metric, total in totals.items()
        }
        watched = set(self.layers)
        for metric, values in (("l2", l2), ("linf", linf), ("nonfinite", nonfinite)):
            for name, value in zip(named, values.unbind(), strict=True):
                if name in watched:
                    metrics[f"gradients/{name}/{metric}"] = value
        return Observation(metrics)
