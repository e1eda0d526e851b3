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
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.training.clock import StepClock
from altgrad_core.training.monitoring import MonitorPanel
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


class Bench:
    """Drives one monitor over one model by hand."""

    def __init__(self, monitor: Monitor, model: nn.Module, max_steps: int = 1000) -> None:
        self.model, self.monitor = model, monitor
        self.clock = StepClock(torch.device("cpu"))
        self.weights = weight_geometry(model)
        self.run = Run(
            model,
            torch.optim.SGD(model.parameters(), lr=1.0),
            self.weights,
            torch.device("cpu"),
            max_steps,
            self.clock,
        )
        self.panel = MonitorPanel([("monitor", monitor)])
        self.events: list[Event] = self.panel.start(self.run).events

    def step(
        self,
        number: int = 1,
        *,
        inputs: Tensor | None = None,
        gradients: dict[str, Tensor] | None = None,
        change: Callable[[str, Tensor], Tensor] = lambda name, weight: weight,
    ) -> dict[str, float]:
        """One step: a forward pass if there are ``inputs``, these gradients, this change of weights."""
        self.run.step = number
        self.model.zero_grad()
        if inputs is not None:
            with hold_weights(self.model):
                self.model(inputs).sum().backward()
        parameters = dict(self.model.named_parameters())
        for name, gradient in (gradients or {}).items():
            parameters[name].grad = gradient
        view = StepView(self.run, torch.tensor(0.0))
        self.panel.before_update(view)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(change(name, parameter.clone()))
        outcome = self.panel.after_update(view)
        self.events += outcome.events
        failed = [event.message for event in self.events if event.kind == "monitor_failed"]
        assert not failed, failed
        return outcome.metrics


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
