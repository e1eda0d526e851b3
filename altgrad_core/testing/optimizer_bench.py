"""A small fit for the check of optimizers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.optimizer import OptimizerPlugin
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.surgery import quantize_model

SIZE = 8


class UniformFormat(Format):
    """A grid for tests: 8 bits, 0 to ±127/128 in steps of 1/128."""

    name = "uniform"
    bits = 8

    def code_values(self) -> Tensor:
        """Sign and magnitude: codes 0 to 127 are 0 to 127/128, the rest their negatives."""
        magnitudes = torch.arange(128) / 128
        return torch.cat((magnitudes, -magnitudes))


@dataclass
class Where:
    """Whether weights are on a grid, in words."""

    quantized: bool

    def __str__(self) -> str:
        return "with weights on a grid" if self.quantized else "with an empty geometry"


class Fit:
    """A fit of two linear layers, with the optimizer under test. Every instance starts the same."""

    def __init__(
        self,
        plugin: OptimizerPlugin,
        fmt: Format | None,
        learning_rate: float,
        device: torch.device,
    ) -> None:
        own = torch.Generator().manual_seed(1)
        self.where = Where(fmt is not None)
        self.model = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE))
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=own))
        if fmt is not None:
            quantize_model(self.model, fmt)
        self.model.to(device)
        self.x = torch.randn(64, SIZE, generator=own).to(device)
        self.y = self.x @ torch.randn(SIZE, SIZE, generator=own).to(device) / SIZE**0.5
        self.generator = torch.Generator(device)
        geometry: Mapping[nn.Parameter, WeightGeometry] = {
            g.parameter: g for g in weight_geometry(self.model).values()
        }
        self.groups: list[dict[str, Any]] = [
            {"params": [p for p in self.model.parameters() if p.dim() == 2]},
            {"params": [p for p in self.model.parameters() if p.dim() == 1], "weight_decay": 0.0},
        ]
        self.plugin = copy.deepcopy(plugin)
        self.optimizer = self.plugin.build(
            [dict(group) for group in self.groups],
            geometry,
            learning_rate=learning_rate,
            generator=self.generator,
        )

    def loss(self) -> Tensor:
        """The mean squared error, 0-d."""
        loss: Tensor = (self.model(self.x) - self.y).square().mean()
        return loss

    def step(self, number: int) -> float:
        """Take step ``number`` and return the loss before it."""
        self.generator.manual_seed(number)
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()

    def scaled_step(
        self, number: int, scaler: torch.amp.GradScaler, *, broken: bool = False
    ) -> None:
        """Take step ``number`` of a scaled loss; if ``broken``, one gradient is infinite."""
        self.generator.manual_seed(number)
        self.optimizer.zero_grad()
        scaler.scale(self.loss()).backward()  # type: ignore[no-untyped-call]
        if broken:
            grad = next(self.model.parameters()).grad
            if grad is None:
                raise AssertionError(f"{self.where}, the step left a weight without a gradient")
            grad.view(-1)[0] = torch.inf
        scaler.step(self.optimizer)
        scaler.update()

    def weights(self) -> Tensor:
        """A copy of all parameters, 1-d."""
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])

    def tensors(self) -> list[Tensor]:
        """Parameters, gradients and buffers: what is on the device."""
        own = list(self.model.parameters())
        grads = [p.grad for p in own if p.grad is not None]
        return [*own, *grads, *self.model.buffers()]
