"""Optimizers that take no step; a task reads from the weights which one was used, and at what rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from altgrad_core.interfaces import OptimizerPlugin, WeightGeometry
from altgrad_planted.settings import MarkerSettings


class Marker(torch.optim.Optimizer):
    """Adds nothing to the weights, and an attribute to each parameter."""

    def __init__(self, params: Any, name: str, learning_rate: float) -> None:
        super().__init__(params, {"lr": learning_rate})
        self.name = name
        self.peak = learning_rate

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Mark."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.planted = (self.name, self.peak)
        return closure() if closure is not None else None


class MarkerPlugin(OptimizerPlugin):
    """Builds a :class:`Marker`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        *,
        learning_rate: float,
        generator: torch.Generator,
    ) -> torch.optim.Optimizer:
        """See :class:`OptimizerPlugin`."""
        return Marker(groups, self.name, learning_rate)


def plain(settings: MarkerSettings) -> MarkerPlugin:
    """The baseline."""
    return MarkerPlugin("plain")


def marked(settings: MarkerSettings) -> MarkerPlugin:
    """The treatment."""
    return MarkerPlugin("marked")
