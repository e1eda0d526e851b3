"""Gradient noise: how much of a step's gradient is signal, from the parts of its batch.

The batch of ``B`` examples is split into ``k`` parts of ``b = ⌊B / k⌋`` (examples left over are
dropped), and each part's gradient ``g_j`` is computed at the present weights, rounded as in
training, in eval mode (no dropout), one pass per part. With ``ḡ`` their mean, ``G`` the gradient
over all data and ``Σ`` the covariance of the gradient of one example, two unbiased estimates:

===============  ===============================================================  ===============
``noise``        tr Σ ≈ b Σⱼ ‖g_j − ḡ‖² / (k − 1)                                 of g², examples
``signal``       ‖G‖² ≈ ‖ḡ‖² − tr Σ / (k b); may fall below zero                  of g²
``snr``          ‖G‖² / (tr Σ / (k b)): the SNR of ``ḡ``, in powers; likewise     –
``noise_scale``  B_simple = tr Σ / ‖G‖²; NaN where ``signal`` is not above zero   examples
===============  ===============================================================  ===============

McCandlish, Kaplan, Amodei et al. 2018, arXiv:1812.06162, section 2.2 and appendix A.1: their two
batch sizes are ``b`` (with the mean of the ‖g_j‖²) and ``k b`` (with ‖ḡ‖²).

Layers are the watched weights that have a gradient; ``all`` takes them as one vector, so its
``noise`` and ``signal`` are sums. The quotients of single measurements are neither unbiased nor
exact (the variance is one of ``k`` vectors): to compare conditions, average ``noise`` and
``signal`` over steps or seeds, then divide.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.monitor import Observation, StepView
from altgrad_core.interfaces.task import Batch
from altgrad_plugins.monitors.gradients.batches import parts_of
from altgrad_plugins.monitors.gradients.settings import GradientNoiseSettings
from altgrad_plugins.monitors.layers import ALL, LayerMonitor, per_layer, with_total


class GradientNoiseMonitor(LayerMonitor):
    """``gradient_noise/<layer>/{noise, signal, snr, noise_scale}``, before the update.

    A batch of a single example cannot be split, and gives no metrics.
    """

    def __init__(self, settings: GradientNoiseSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self.parts = settings.parts

    def before_update(self, step: StepView) -> Observation | None:
        """A forward and a backward pass of each part."""
        weights = {name: step.weights[name].parameter for name in self.layers}
        weights = {name: weight for name, weight in weights.items() if weight.grad is not None}
        if not weights:
            return None
        parts = parts_of(step.batch, self.parts)
        if len(parts) < 2:
            return None
        mean, spread = _mean_and_spread(step, list(weights.values()), parts)
        examples = len(parts) * parts[0].samples
        noise = with_total(spread * (parts[0].samples / (len(parts) - 1)))
        signal = with_total(mean) - noise / examples
        found = {
            "noise": noise,
            "signal": signal,
            "snr": signal / (noise / examples),
            "noise_scale": torch.where(signal > 0, noise / signal, torch.nan),
        }
        metrics: dict[str, float | Tensor] = {}
        for metric, values in found.items():
            metrics |= per_layer("gradient_noise", metric, [*weights, ALL], values)
        return Observation(metrics)


def _mean_and_spread(
    step: StepView, weights: Sequence[nn.Parameter], parts: Sequence[Batch]
) -> tuple[Tensor, Tensor]:
    """‖ḡ‖² and Σⱼ ‖g_j − ḡ‖² of each weight: float64, shape ``(len(weights),)``.

    By Welford's recurrence, so that no more than one gradient is kept.
    """
    means: list[Tensor] = []
    spread = torch.zeros(len(weights), dtype=torch.float64, device=step.device)
    for count, part in enumerate(parts, 1):
        with step.replay(part) as loss:
            found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        gradients = [gradient.double() for gradient in found]
        if count == 1:
            means = gradients
            continue
        away = torch._foreach_sub(gradients, means)
        spread += _squares(away) * ((count - 1) / count)
        torch._foreach_add_(means, away, alpha=1 / count)
    return _squares(means), spread


def _squares(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(list(tensors), 2)).square()
