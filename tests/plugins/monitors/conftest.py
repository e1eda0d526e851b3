"""A bench for monitors: a quantised model, steps with a given update, and the metrics that come of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Event, Monitor
from altgrad_core.interfaces.plugin import Offer
from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.residency import GridResidency
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.training.clock import StepClock
from altgrad_core.training.monitoring import MonitorPanel, Outcome
from altgrad_core.training.replay import Replayer
from altgrad_core.training.seeds import seed_step
from altgrad_core.training.view import Run, StepView
from altgrad_plugins.formats import altgrad_formats
from altgrad_plugins.monitors import altgrad_monitors


def build(offer: Offer, *arguments: Any, **settings: Any) -> Any:
    """What the offer offers, as the registry would build it."""
    module, attribute = offer.target.split(":")
    target = getattr(importlib.import_module(module), attribute)
    return target(*arguments, offer.settings(**settings))


@pytest.fixture(scope="session")
def load_format() -> Callable[..., Format]:
    offers = {offer.name: offer for offer in altgrad_formats()}

    def load(name: str, **settings: Any) -> Format:
        built: Format = build(offers[name], name, **settings)
        return built

    return load


@pytest.fixture(scope="session")
def load_monitor() -> Callable[..., Monitor]:
    offers = {offer.name: offer for offer in altgrad_monitors()}

    def load(name: str, **settings: Any) -> Monitor:
        built: Monitor = build(offers[name], **settings)
        return built

    return load


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """The sum of outputs: gradients are easy to tell by hand."""
    total: Tensor = model(batch.tensors["inputs"]).sum()
    return total


def no_probe(samples: int) -> Batch:
    raise AssertionError("this bench has no probe batch")


class Bench:
    """Drives one monitor over one model by hand.

    loss:
        ``(model, batch) -> loss``, for steps with inputs and for replays; a batch has ``inputs``.
    probe:
        ``samples -> batch``.
    """

    def __init__(
        self,
        monitor: Monitor,
        model: nn.Module,
        max_steps: int = 1000,
        *,
        loss: Callable[[nn.Module, Batch], Tensor] = loss_of,
        probe: Callable[[int], Batch] | None = None,
    ) -> None:
        self.model, self.monitor, self.loss = model, monitor, loss
        device = torch.device("cpu")
        self.clock = StepClock(device)
        self.weights = weight_geometry(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        self.residency = GridResidency(model, torch.Generator().manual_seed(0))
        self.run = Run(
            model,
            optimizer,
            self.weights,
            device,
            max_steps,
            self.clock,
            replayer=Replayer(model, loss, probe or no_probe, device=device, seed=0),
            residency=self.residency,
        )
        self.panel = MonitorPanel([("monitor", monitor)])
        self.events: list[Event] = self.panel.start(self.run).events
        self.last: Outcome | None = None

    def step(
        self,
        number: int = 1,
        *,
        inputs: Tensor | None = None,
        gradients: dict[str, Tensor] | None = None,
        change: Callable[[str, Tensor], Tensor] = lambda name, weight: weight,
    ) -> dict[str, float]:
        """One step: a forward pass if there are ``inputs``, these gradients, this change of weights.

        Resident weights settle after the change, as after an optimizer's step.
        """
        self.run.step = number
        self.model.zero_grad()
        batch = None
        if inputs is not None:
            batch = Batch({"inputs": inputs}, samples=len(inputs), tokens=len(inputs))
            seed_step(0, number, torch.Generator())
            with hold_weights(self.model):
                self.loss(self.model, batch).backward()  # type: ignore[no-untyped-call]
        parameters = dict(self.model.named_parameters())
        for name, gradient in (gradients or {}).items():
            parameters[name].grad = gradient
        view = StepView(self.run, torch.tensor(0.0), batch)
        before = self.panel.before_update(view)
        if not before.skip_update:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(change(name, parameter.clone()))
            self.residency.settle()
        self.last = self.panel.after_update(view)
        self.residency.forget()
        self.events += self.last.events
        failed = [event.message for event in self.events if event.kind == "monitor_failed"]
        assert not failed, failed
        return self.last.metrics


@pytest.fixture(scope="session")
def bench() -> type[Bench]:
    return Bench


@pytest.fixture
def two_layers(load_format: Callable[..., Format]) -> Callable[..., nn.Module]:
    """A model of two quantised layers, ``0.weight`` (7, 6) and ``2.weight`` (5, 7)."""

    def make(fmt: str | Format = "e3m4", **options: Any) -> nn.Module:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5))
        quantize_model(model, load_format(fmt) if isinstance(fmt, str) else fmt, **options)
        return model

    return make
