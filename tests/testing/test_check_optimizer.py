"""check_optimizer must notice each way to break the contract."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.optimizer import OptimizerPlugin
from altgrad_core.testing.optimizers import check_optimizer


class Good(torch.optim.SGD):
    def __init__(self, groups: Any, generator: torch.Generator, **arguments: Any) -> None:
        super().__init__(groups, momentum=0.9, **arguments)
        self.generator = generator


class Idle(Good):
    def step(self, closure: Any = None) -> None: ...


class Global(Good):
    def step(self, closure: Any = None) -> None:
        torch.rand(1)
        super().step()


class Spoils(Good):
    def step(self, closure: Any = None) -> None:
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.mul_(2)


class OwnRate(Good):
    def step(self, closure: Any = None) -> None:
        kept = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] = 0.01
        super().step()
        for group, lr in zip(self.param_groups, kept, strict=True):
            group["lr"] = lr


class Forgets(Good):
    """Keeps a count outside of its state dict."""

    count = 0

    def step(self, closure: Any = None) -> None:
        self.count += 1
        for group in self.param_groups:
            group["lr"] = 0.01 / self.count**0.5 if group["lr"] else 0.0
        super().step()


class Unrepeatable(Good):
    shared = torch.Generator().manual_seed(0)

    def step(self, closure: Any = None) -> None:
        super().step()
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(1e-3 * torch.randn(p.shape, generator=self.shared))


class Seeds(Good):
    def step(self, closure: Any = None) -> None:
        self.generator.manual_seed(0)
        super().step()


class LeavesOut(Good):
    """Moves no bias."""

    def step(self, closure: Any = None) -> None:
        left = self.param_groups.pop()
        super().step()
        self.param_groups.append(left)


class KeepsATensorForLater(Good):
    mean: torch.Tensor | None = None

    def step(self, closure: Any = None) -> None:
        gradient = self.param_groups[0]["params"][0].grad
        if gradient is not None:
            self.mean = gradient.clone() if self.mean is None else self.mean.lerp(gradient, 0.1)
        super().step()


class Promises(Good):
    """Says that it heeds ``grad_scale`` and ``found_inf``, and does not."""

    _step_supports_amp_scaling = True

    def step(self, closure: Any = None) -> None:
        own = vars(self)
        handed = {name: own.pop(name) for name in ("grad_scale", "found_inf") if name in own}
        self.take(**handed)
        own.update(handed)

    def take(self, grad_scale: Any = 1.0, found_inf: Any = 0.0) -> None:
        super().step()


class Unscales(Promises):
    """Takes steps with infinite gradients: it heeds the scale alone."""

    def take(self, grad_scale: Any = 1.0, found_inf: Any = 0.0) -> None:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        for grad in grads:
            if grad is not None:
                grad.div_(grad_scale)
        super().take()
        for grad in grads:
            if grad is not None:
                grad.mul_(grad_scale)


class Counts(Unscales):
    """Leaves weights alone where a gradient is infinite, but not what it remembers."""

    def take(self, grad_scale: Any = 1.0, found_inf: Any = 0.0) -> None:
        if not float(found_inf):
            super().take(grad_scale)
            return
        for state in self.state.values():
            state["momentum_buffer"].mul_(0.9)


class Heeds(Counts):
    """Does what it says."""

    def take(self, grad_scale: Any = 1.0, found_inf: Any = 0.0) -> None:
        if not float(found_inf):
            super().take(grad_scale)


class CountsForLater(Good):
    """Its count, which no state dict holds, would halve the rate after a thousand steps."""

    calls = 0

    def step(self, closure: Any = None) -> None:
        self.calls += 1
        if self.calls == 1000:
            for group in self.param_groups:
                group["lr"] /= 2
        super().step()


class ActsLate(Good):
    """Keeps its count where attributes do not show it, and acts on it at step 60."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        counted = iter(range(1, 10**6))
        self.count = lambda: next(counted)

    def step(self, closure: Any = None) -> None:
        if self.count() == 60:
            for state in self.state.values():
                state["momentum_buffer"].zero_()
        super().step()


class Reads(Good):
    def step(self, closure: Any = None) -> None:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        if sum(float(grad.sum()) for grad in grads if grad is not None) < 1e9:
            super().step()


class Masks(Good):
    def step(self, closure: Any = None) -> None:
        super().step()
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p[p > 1e9] = 0.0


class DrawsFromPython(Good):
    def step(self, closure: Any = None) -> None:
        random.random()
        super().step()


class Plugin(OptimizerPlugin):
    def __init__(self, build: Callable[..., Any]) -> None:
        self._build = build

    def build(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        *,
        learning_rate: float,
        generator: torch.Generator,
    ) -> torch.optim.Optimizer:
        result: torch.optim.Optimizer = self._build(groups, generator, lr=learning_rate)
        return result


def test_a_good_optimizer_passes() -> None:
    check_optimizer(Plugin(Good), learning_rate=0.05)
    check_optimizer(Plugin(Heeds), learning_rate=0.05)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (Idle, "at least halve the loss"),
        (Global, "global generator"),
        (Spoils, "leave gradients as they are"),
        (OwnRate, r"group\['lr'\] = 0"),
        (Forgets, "going on from a saved state"),
        (Unrepeatable, "must give the same weights"),
        (
            CountsForLater,
            "the attribute 'calls' of the optimizer is 100 .* and 96 .*keep it in optimizer.state",
        ),
        (ActsLate, "56 step.s. later they differ"),
        (Reads, r"step\(\) makes the host wait for the device, by item\(\)"),
        (Masks, r"step\(\) makes the host wait for the device, by an index by a mask"),
        (DrawsFromPython, "draws from Python's random module"),
        (Seeds, "seeds the generator, so that each step draws the same"),
        (LeavesOut, "100 steps leave the parameter '0.bias' where it was"),
        (KeepsATensorForLater, "the attribute 'mean' of the optimizer"),
        (Promises, "must divide gradients by grad_scale"),
        (Unscales, "though a gradient is infinite"),
        (Counts, "follows one with an infinite gradient"),
        (lambda groups, generator, lr: Good(groups[:1], generator, lr=lr), "every parameter"),
        (lambda groups, generator, lr: Good(groups, generator, lr=lr / 2), "must start as"),
        (lambda groups, generator, lr: object(), "must return a torch.optim.Optimizer"),
    ],
)
def test_a_bad_one_does_not(build: Callable[..., Any], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_optimizer(Plugin(build), learning_rate=0.05)


def test_something_else_is_refused() -> None:
    with pytest.raises(AssertionError, match="not an OptimizerPlugin"):
        check_optimizer(Good)  # type: ignore[arg-type]
