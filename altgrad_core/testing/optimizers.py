"""The checks that every optimizer plugin must pass, built in or not. Needs no pytest."""

from __future__ import annotations

import io
import math
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

_SIZE = 8


class UniformFormat(Format):
    """A grid for tests: 8 bits, 0 to ±127/128 in steps of 1/128."""

    name = "uniform"
    bits = 8

    def code_values(self) -> Tensor:
        """Sign and magnitude: codes 0 to 127 are 0 to 127/128, the rest their negatives."""
        magnitudes = torch.arange(128) / 128
        return torch.cat((magnitudes, -magnitudes))


def check_optimizer(
    plugin: OptimizerPlugin,
    *,
    fmt: Format | None = None,
    learning_rate: float = 0.01,
    steps: int = 100,
    device: str | torch.device = "cpu",
) -> None:
    """Raise ``AssertionError``, saying what is wrong, unless ``plugin`` keeps its contract.

    It fits two small linear layers to a third, once with weights on the grid of ``fmt`` (a uniform
    one if None) and once without any geometry, and checks that the optimizer

    - takes every parameter group, and the learning rate;
    - at least halves the loss in ``steps`` steps at ``learning_rate``: choose them to suit it;
    - draws from the generator it was given and nothing else, and repeats itself exactly;
    - goes on bit for bit from a state dict that went through ``torch.save`` and
      ``torch.load(weights_only=True)``;
    - takes the same steps under a ``torch.amp.GradScaler``, and none where a gradient is not finite;
    - stands still where ``group["lr"]`` is 0 or a parameter has no gradient, and leaves gradients as
      they are, since monitors look at them after the update.
    """
    if not isinstance(plugin, OptimizerPlugin):
        raise AssertionError(f"{plugin!r} is not an OptimizerPlugin")
    place = torch.device(device)
    for grid in (fmt or UniformFormat(), None):
        _check_groups(_Fit(plugin, grid, learning_rate, place), learning_rate)
        _check_progress(_Fit(plugin, grid, learning_rate, place), steps)
        pair = [_Fit(plugin, grid, learning_rate, place) for _ in range(2)]
        _check_repeats(pair[0], pair[1])
        pair = [_Fit(plugin, grid, learning_rate, place) for _ in range(2)]
        _check_checkpoint(pair[0], pair[1])
        pair = [_Fit(plugin, grid, learning_rate, place) for _ in range(2)]
        _check_scaled_loss(pair[0], pair[1])
    _check_standing_still(_Fit(plugin, None, learning_rate, place))


@dataclass
class _Where:
    """Whether weights are on a grid, in words."""

    quantized: bool

    def __str__(self) -> str:
        return "with weights on a grid" if self.quantized else "with an empty geometry"


class _Fit:
    """A fit of two linear layers, with the optimizer under test. Every instance starts the same."""

    def __init__(
        self,
        plugin: OptimizerPlugin,
        fmt: Format | None,
        learning_rate: float,
        device: torch.device,
    ) -> None:
        own = torch.Generator().manual_seed(1)
        self.where = _Where(fmt is not None)
        self.model = nn.Sequential(nn.Linear(_SIZE, _SIZE), nn.Linear(_SIZE, _SIZE))
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=own))
        if fmt is not None:
            quantize_model(self.model, fmt)
        self.model.to(device)
        self.x = torch.randn(64, _SIZE, generator=own).to(device)
        self.y = self.x @ torch.randn(_SIZE, _SIZE, generator=own).to(device) / _SIZE**0.5
        self.generator = torch.Generator(device)
        geometry: Mapping[nn.Parameter, WeightGeometry] = {
            g.parameter: g for g in weight_geometry(self.model).values()
        }
        self.groups: list[dict[str, Any]] = [
            {"params": [p for p in self.model.parameters() if p.dim() == 2]},
            {"params": [p for p in self.model.parameters() if p.dim() == 1], "weight_decay": 0.0},
        ]
        self.optimizer = plugin.build(
            [dict(group) for group in self.groups],
            geometry,
            learning_rate=learning_rate,
            generator=self.generator,
        )

    def loss(self) -> Tensor:
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
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


def _check_groups(fit: _Fit, learning_rate: float) -> None:
    optimizer: object = fit.optimizer
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise AssertionError(f"build must return a torch.optim.Optimizer, not {optimizer!r}")
    taken = [id(p) for group in optimizer.param_groups for p in group["params"]]
    if sorted(taken) != sorted(map(id, fit.model.parameters())):
        raise AssertionError("the optimizer must hold every parameter it was given, each once")
    for group in optimizer.param_groups:
        if group["lr"] != learning_rate:
            raise AssertionError(
                f"group['lr'] must start as the learning rate {learning_rate}, not {group['lr']}"
            )


def _check_progress(fit: _Fit, steps: int) -> None:
    losses = [fit.step(number) for number in range(1, steps + 1)]
    last = sum(losses[-5:]) / len(losses[-5:])
    if math.isnan(last) or last >= losses[0] / 2:
        raise AssertionError(
            f"{fit.where}, {steps} steps must at least halve the loss of a linear fit, but it went "
            f"from {losses[0]:.4g} to {last:.4g}"
        )


def _check_repeats(first: _Fit, second: _Fit) -> None:
    for number in range(1, 6):
        first.step(number)
    before = torch.get_rng_state()
    for number in range(1, 6):
        torch.manual_seed(1000 + number)
        inside = torch.get_rng_state()
        second.step(number)
        if not torch.equal(inside, torch.get_rng_state()):
            raise AssertionError(
                f"{type(second.optimizer).__name__} draws from torch's global generator; use the one "
                f"given to build"
            )
    torch.set_rng_state(before)
    if not torch.equal(first.weights(), second.weights()):
        raise AssertionError(
            f"{first.where}, the same steps with the same generator must give the same weights"
        )


def _check_checkpoint(first: _Fit, second: _Fit) -> None:
    for number in range(1, 5):
        first.step(number)
    file = io.BytesIO()
    torch.save((first.model.state_dict(), first.optimizer.state_dict()), file)
    file.seek(0)
    model_state, optimizer_state = torch.load(file, weights_only=True)
    second.model.load_state_dict(model_state)
    second.optimizer.load_state_dict(optimizer_state)
    _compare_states(first.optimizer, second.optimizer)
    for number in range(5, 9):
        first.step(number)
        second.step(number)
        if not torch.equal(first.weights(), second.weights()):
            raise AssertionError(
                f"{first.where}, going on from a saved state must give the same weights bit for bit, "
                f"but {number - 4} step(s) later they differ"
            )


def _check_scaled_loss(plain: _Fit, scaled: _Fit) -> None:
    """Scales are powers of two, so scaling is exact and the steps are the same bit for bit."""
    name = type(scaled.optimizer).__name__
    scaler = torch.amp.GradScaler(scaled.x.device.type, init_scale=2.0**8)
    for number in range(1, 7):
        if number == 4:
            before = scaled.weights()
            scaled.scaled_step(number, scaler, broken=True)
            if not torch.equal(before, scaled.weights()):
                raise AssertionError(
                    f"{scaled.where}, {name} takes the step though a gradient is infinite. If "
                    f"_step_supports_amp_scaling is set, step() must heed found_inf; else GradScaler "
                    f"does"
                )
        plain.step(number)
        scaled.scaled_step(number, scaler)
        after = " that follows one with an infinite gradient" if number == 4 else ""
        if not torch.equal(plain.weights(), scaled.weights()):
            raise AssertionError(
                f"{scaled.where}, the step of {name} with a scaled loss{after} must be that of the "
                f"loss itself. If _step_supports_amp_scaling is set, step() must divide gradients by "
                f"grad_scale and heed found_inf; else GradScaler does both"
            )


def _compare_states(first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
    one, other = first.state_dict()["state"], second.state_dict()["state"]
    for index, state in one.items():
        for key, value in state.items():
            loaded = other[index][key]
            if isinstance(value, Tensor):
                same = value.dtype == loaded.dtype and torch.equal(value, loaded.to(value.device))
            else:
                same = value == loaded
            if not same:
                raise AssertionError(
                    f"state {key!r} is not what it was after a round trip of the state dict"
                )


def _check_standing_still(fit: _Fit) -> None:
    fit.step(1)
    for group in fit.optimizer.param_groups:
        group["lr"] = 0.0
    before = fit.weights()
    fit.step(2)
    if not torch.equal(before, fit.weights()):
        raise AssertionError("with group['lr'] = 0 the weights must stay")
    for group in fit.optimizer.param_groups:
        group["lr"] = 0.01
    frozen = fit.model.get_parameter("0.weight")
    fit.optimizer.zero_grad()
    fit.loss().backward()  # type: ignore[no-untyped-call]
    frozen.grad = None
    grads = [torch.clone(p.grad) for p in fit.model.parameters() if p.grad is not None]
    kept = frozen.detach().clone()
    fit.optimizer.step()
    if not torch.equal(kept, frozen):
        raise AssertionError("a parameter without a gradient must stay where it is")
    after = [p.grad for p in fit.model.parameters() if p.grad is not None]
    if not all(torch.equal(a, b) for a, b in zip(grads, after, strict=True)):
        raise AssertionError(
            "the step must leave gradients as they are: monitors look at them afterwards"
        )
