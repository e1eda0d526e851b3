"""What an optimizer plugin must be: something that builds a ``torch.optim.Optimizer``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from altgrad_core.interfaces.geometry import WeightGeometry


class OptimizerPlugin(ABC):
    """Builds an optimizer from parameter groups and the geometry of the weights among them."""

    @abstractmethod
    def build(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        *,
        learning_rate: float,
        generator: torch.Generator,
    ) -> torch.optim.Optimizer:
        """Return the optimizer.

        groups:
            parameter groups as ``torch.optim`` takes them; a group that must not decay (biases, norms)
            carries ``weight_decay: 0.0``, the others leave it to the plugin's settings.
        geometry:
            the quantised weights among the parameters. A parameter that is not in it is not on a grid.
        learning_rate:
            the peak rate; a schedule changes ``group["lr"]`` from step to step.
        generator:
            the only source of randomness an optimizer may use, through
            :func:`~altgrad_core.interfaces.draws.uniform`, whose numbers are the same on every device. It
            is re-seeded by the step loop before every step, from the seed and the step number.
        """
