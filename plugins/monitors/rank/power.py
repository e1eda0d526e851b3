"""The spectral norm by power iteration, warm-started: two products with a vector per iteration.

The iteration ``v ← Wᵀ W v / ‖Wᵀ W v‖`` ends with the estimate ``σ = ‖W v‖``, in float64. Whatever
``v`` is, ``σ ≤ σ₁``: the norm is never overestimated, so the stable rank ‖W‖_F² / σ² is never
underestimated. The error does not vanish with the gap between σ₁ and σ₂ but stays small: from a
random start ``σ² ≥ σ₁² (1 − 0.871 ln n / (k − 1))`` on average after k iterations (Kuczyński &
Woźniakowski 1992, theorem 3.1), and far smaller in practice.

Between two measurements a matrix changes little, so the vector is kept and used again. A tenth of
its length of fresh noise is added, from a generator of its own: a kept vector may have lost the
direction that leads now.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from altgrad_plugins.monitors.rank.spectra import as_matrix

_COLD = 10
"""How many times as many iterations a vector gets that was not kept."""
_NOISE = 0.1


class PowerIteration:
    """Keeps a vector for each layer. Never waits for the device."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations
        self.vectors: dict[str, Tensor] = {}

    def measure(self, weights: Mapping[str, Tensor], step: int) -> Tensor:
        """Stable rank and spectral norm of each weight: float64, shape ``(len(weights), 2)``.

        ``step`` seeds the noise.
        """
        device = next(iter(weights.values())).device
        generator = torch.Generator(device).manual_seed(step)
        rows = [self._measure(name, weight, generator) for name, weight in weights.items()]
        return torch.stack(rows)

    def _measure(self, name: str, weight: Tensor, generator: torch.Generator) -> Tensor:
        matrix = as_matrix(weight)
        # At once where squares would overflow or underflow, and back at the end.
        unit = matrix.abs().amax()
        matrix = matrix / torch.where(unit > 0, unit, 1.0)
        start, iterations = _random(matrix.shape[0], generator), self.iterations * _COLD
        if name in self.vectors:
            # The first time after a restart the kept vector is still on the host.
            kept = self.vectors[name].to(matrix.device)
            start, iterations = kept + _NOISE * start, self.iterations
        vector = start / torch.linalg.vector_norm(start)
        for _ in range(iterations):
            vector = _unit(matrix @ (vector @ matrix), vector)
        self.vectors[name] = vector
        spectral = torch.linalg.vector_norm(vector @ matrix)
        frobenius = torch.linalg.vector_norm(matrix)
        stable = torch.where(frobenius > 0, (frobenius / spectral).square(), frobenius)
        return torch.stack((stable, spectral * unit))


def _random(size: int, generator: torch.Generator) -> Tensor:
    """A random direction: float64, ``(size,)``, on the device of ``generator``."""
    noise = torch.randn(size, dtype=torch.float64, device=generator.device, generator=generator)
    length: Tensor = torch.linalg.vector_norm(noise)
    return noise / length


def _unit(vector: Tensor, fallback: Tensor) -> Tensor:
    """``vector`` at length 1, or ``fallback`` if it is zero or has a NaN."""
    length = torch.linalg.vector_norm(vector)
    return torch.where(length > 0, vector / length, fallback)
