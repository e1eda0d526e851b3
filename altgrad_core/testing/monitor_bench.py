"""A small training run for the check of monitors, and what is seen of it."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Clock, Monitor
from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.residency import GridResidency
from altgrad_core.quantization.settings import Residency, ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.testing.waits import Watch
from altgrad_core.training.clock import StepClock
from altgrad_core.training.monitoring import MonitorPanel, Outcome
from altgrad_core.training.protocol import MonitoredStep
from altgrad_core.training.replay import Replayer
from altgrad_core.training.view import Run, StepView

STEPS = 12
_EVALUATED = (4, 8)
_DEVICE = torch.device("cpu")


class CoarseFormat(Format):
    """A small grid for tests: 15 values, 0 to ±7/8 in steps of 1/8. Flips and stalls are many."""

    name = "coarse"
    bits = 4

    def code_values(self) -> Tensor:
        """Sign and magnitude: codes 0 to 7 are 0 to 7/8, codes 8 to 15 their negatives."""
        magnitudes = torch.arange(8) / 8
        return torch.cat((magnitudes, -magnitudes))


@dataclass
class Trial:
    """One training run of a dozen steps.

    Attributes:
        kept: Everything that a monitor must not change.
        seen: ``step 3: gradients/all/norm`` -> what the monitor gave there; events by their kind.
        waits: Step and hook -> the first operation there that waits for the device.
        monitor: The monitor as it was at the end.
        timed: Whether the monitor has asked how long steps took.
    """

    kept: dict[str, Tensor] = field(default_factory=dict)
    seen: dict[str, float | str] = field(default_factory=dict)
    waits: dict[str, str] = field(default_factory=dict)
    monitor: Monitor | None = None
    timed: bool = False

    def take(self, when: str, outcome: Outcome) -> None:
        """Note what the monitor gave. Raises ``AssertionError`` if it failed."""
        for event in outcome.events:
            if event.kind == "monitor_failed":
                raise AssertionError(event.message)
            self.seen[f"{when}: the event {event.kind} of {event.layer}"] = event.message
        self.seen |= {f"{when}: {name}": value for name, value in outcome.metrics.items()}


class _Clock(StepClock):
    asked = False

    def seconds(self) -> float:
        self.asked = True
        return super().seconds()


def train(
    monitor: Monitor | None,
    *,
    residency: Residency | None = "master",
    poisoned: bool = False,
    restarts: bool = False,
    watched: bool = False,
) -> Trial:
    """Train a tiny model for a dozen steps, with a copy of the monitor looking on.

    poisoned:
        a weight becomes NaN on the way.
    restarts:
        after each step but the last another copy of the monitor goes on from the state of the last one.
    watched:
        note what waits for the device, from the second step on.
    """
    trial, fresh = Trial(), copy.deepcopy(monitor)
    with seeded():
        model = _Model(residency)
        clock = _Clock(_DEVICE)
        run = _run_of(model, clock)
        panel = _panel(monitor, trial)
        trial.take("start", panel.start(run))
        for step in range(1, STEPS + 1):
            if poisoned and step == STEPS // 2:
                _poison(model)
            _step(run, clock, panel, trial, watched=watched and step > 1)
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    trial.kept[f"gradient {name} after step {step}"] = parameter.grad.clone()
            if step in _EVALUATED:
                metrics = {"loss": 1.0 / step, "f1_micro": 0.5}
                trial.take(f"evaluation {step}", panel.evaluation(run, metrics))
            if restarts and monitor is not None and step < STEPS:
                panel = _restarted(panel, fresh, run, trial)
        trial.take("end", panel.end(run))
        trial.timed = clock.asked
        trial.kept = {
            "training mode": torch.tensor([module.training for module in model.modules()]),
            "random numbers": torch.get_rng_state(),
            **{f"parameter {n}": p.detach().clone() for n, p in model.named_parameters()},
            **{f"buffer {n}": b.detach().clone() for n, b in model.named_buffers()},
            **trial.kept,
        }
    return trial


def _panel(monitor: Monitor | None, trial: Trial) -> MonitorPanel:
    trial.monitor = copy.deepcopy(monitor)
    return MonitorPanel([] if trial.monitor is None else [("checked", trial.monitor)])


def _restarted(panel: MonitorPanel, fresh: Monitor | None, run: Run, trial: Trial) -> MonitorPanel:
    """Another panel that goes on from the checkpoint of this one."""
    file = io.BytesIO()
    torch.save(panel.state_dict(), file)
    file.seek(0)
    other = _panel(fresh, trial)
    for event in other.start(run).events:
        if event.kind == "monitor_failed":
            raise AssertionError(event.message)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def _step(run: Run, clock: StepClock, panel: MonitorPanel, trial: Trial, *, watched: bool) -> None:
    step = MonitoredStep(run, panel, clock)
    step.begin(run.step + 1)
    run.optimizer.zero_grad()
    batch = _batch(5)
    loss = _loss(run.model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    with _watching(run, trial, "before_update", watched):
        early = step.before_update(loss, batch)
    trial.take(f"step {run.step}", early)
    run.optimizer.step()
    with _watching(run, trial, "after_update", watched):
        late = step.after_update()
    trial.take(f"step {run.step}", late)
    trial.kept |= {f"batch {run.step}: {key}": one for key, one in batch.tensors.items()}


@contextmanager
def _watching(run: Run, trial: Trial, hook: str, wanted: bool) -> Iterator[None]:
    """Watch what the monitor's own hook does, without the panel's fetching of the metrics."""
    monitor = trial.monitor
    if not wanted or monitor is None:
        yield
        return
    inner: Callable[[Any], Any] = getattr(monitor, hook)

    def outer(view: StepView) -> Any:
        grads = [p.grad for p in run.model.parameters() if p.grad is not None]
        there = [*run.model.parameters(), *run.model.buffers(), *grads, view.loss]
        with Watch([*there, *view.batch.tensors.values()]) as watch:
            result = inner(view)
        if watch.waits:
            trial.waits.setdefault(f"{hook} of step {run.step}", watch.waits)
        return result

    setattr(monitor, hook, outer)
    try:
        yield
    finally:
        delattr(monitor, hook)


class _Model(nn.Module):
    """Two layers with dropout, and a third without use: a quantised weight without a gradient."""

    def __init__(self, residency: Residency | None = "master") -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3, bias=False)
        self.activation = nn.ReLU()
        self.unused = nn.Linear(4, 4)
        if residency is not None:
            coarse = CoarseFormat()
            scaling = ScalingSettings(mode="current" if residency == "grid" else "delayed")
            quantize_model(
                self, coarse, activation_format=coarse, residency=residency, scaling=scaling
            )

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.dropout(self.activation(self.first(x)), 0.2, self.training)
        output: Tensor = self.second(hidden)
        return output


def _batch(samples: int) -> Batch:
    tensors = {"inputs": torch.randn(samples, 6), "targets": torch.randn(samples, 3)}
    return Batch(tensors, samples, tokens=4 * samples)


def _probe(samples: int) -> Batch:
    """The probe batch, from random numbers of its own, as a task's is."""
    with seeded():
        return _batch(samples)


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.mse_loss(model(batch.tensors["inputs"]), batch.tensors["targets"])


def _run_of(model: nn.Module, clock: Clock) -> Run:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    residency = GridResidency(model)
    residency.attach(optimizer)
    replayer = Replayer(model, _loss, _probe, device=_DEVICE, seed=0)
    return Run(
        model=model,
        optimizer=optimizer,
        weights=weight_geometry(model),
        device=_DEVICE,
        max_steps=STEPS,
        clock=clock,
        replayer=replayer,
        residency=residency,
    )


def _poison(model: nn.Module) -> None:
    with torch.no_grad():
        next(model.parameters())[0, 0] = torch.nan


@contextmanager
def seeded() -> Iterator[None]:
    """Seeded random numbers within, the caller's afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def fresh_run() -> Run:
    """A run that has not begun."""
    with seeded():
        return _run_of(_Model(), StepClock(_DEVICE))
