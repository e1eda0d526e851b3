"""The checks that every monitor must pass, built in or not. Needs no pytest."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from contextlib import contextmanager
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
from altgrad_core.training.clock import StepClock
from altgrad_core.training.monitoring import MonitorPanel, Outcome
from altgrad_core.training.replay import Replayer
from altgrad_core.training.view import Run, StepView

_STEPS = 12
_DEVICE = torch.device("cpu")


class CoarseFormat(Format):
    """A small grid for tests: 15 values, 0 to ±7/8 in steps of 1/8. Flips and stalls are many."""

    name = "coarse"
    bits = 4

    def code_values(self) -> Tensor:
        """Sign and magnitude: codes 0 to 7 are 0 to 7/8, codes 8 to 15 their negatives."""
        magnitudes = torch.arange(8) / 8
        return torch.cat((magnitudes, -magnitudes))


def check_monitor(monitor: Monitor) -> None:
    """Raise ``AssertionError``, saying what is wrong, unless ``monitor`` is a good monitor.

    It trains a tiny quantised model for a dozen steps on the CPU and checks that the monitor

    - raises nothing, and gives every metric as ``family/layer/metric`` with a float or a 0-d
      tensor, also in a model whose weights live on the grid, in one without quantised weights, and
      in one whose weights have become NaN;
    - changes nothing: weights, training mode and random numbers are those of a run without it;
    - asks for old weights and rungs before the update;
    - has a state that survives a checkpoint.

    It is called in the steps where it is due, so give it a short interval. Copies of it are run.
    """
    if not isinstance(monitor, Monitor):
        raise AssertionError(f"{monitor!r} is not a Monitor")
    interval: object = monitor.interval
    if not isinstance(interval, int):
        raise AssertionError(f"interval must be a whole number of steps, not {interval!r}")
    if interval < 1:
        raise AssertionError(f"interval must be at least 1, not {interval}")
    _check_changes_nothing(monitor)
    _check_state(monitor)
    _check_changes_nothing(monitor, residency="grid")
    _train(copy.deepcopy(monitor), residency=None)
    _train(copy.deepcopy(monitor), poisoned=True)


def _check_changes_nothing(monitor: Monitor, residency: Residency = "master") -> None:
    alone = _train(None, residency=residency)
    watched = _train(copy.deepcopy(monitor), residency=residency)
    for what, value in alone.items():
        same = torch.equal(value, watched[what])
        if not same:
            raise AssertionError(f"the run differs from the same run without this monitor: {what}")


def _check_state(monitor: Monitor) -> None:
    first, second = copy.deepcopy(monitor), copy.deepcopy(monitor)
    _train(first)
    state = first.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        loaded = torch.load(file, weights_only=True)
    except Exception as error:
        raise AssertionError(
            f"state_dict must hold tensors, numbers, strings, lists and dicts only: {error}"
        ) from error
    with _seeded():
        second.start(_run(_Model(), StepClock(_DEVICE)))
    second.load_state_dict(loaded)
    again = second.state_dict()
    if not _equal(state, again):
        raise AssertionError(f"the state does not survive load_state_dict: {state} -> {again}")


def _train(
    monitor: Monitor | None, *, residency: Residency | None = "master", poisoned: bool = False
) -> dict[str, Tensor]:
    """Train for a dozen steps and return all that a monitor must not change."""
    with _seeded():
        model = _Model(residency)
        clock = StepClock(_DEVICE)
        run = _run(model, clock)
        panel = MonitorPanel([] if monitor is None else [("checked", monitor)])
        _check_outcome(panel.start(run))
        for step in range(1, _STEPS + 1):
            if poisoned and step == _STEPS // 2:
                _poison(model)
            run.step = step
            _step(run, clock, panel)
        _check_outcome(panel.evaluation(run, {"loss": 1.0, "f1_micro": 0.5}))
        _check_outcome(panel.end(run))
        return {
            "random numbers": torch.get_rng_state(),
            "training mode": torch.tensor([module.training for module in model.modules()]),
            **{f"parameter {n}": p.detach().clone() for n, p in model.named_parameters()},
            **{f"buffer {n}": b.detach().clone() for n, b in model.named_buffers()},
        }


def _step(run: Run, clock: StepClock, panel: MonitorPanel) -> None:
    clock.start()
    run.optimizer.zero_grad()
    batch = _batch(5)
    loss = _loss(run.model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    view = StepView(run, loss.detach(), batch)
    with clock.paused():
        _check_outcome(panel.before_update(view))
    run.optimizer.step()
    clock.stop(samples=5, tokens=20)
    _check_outcome(panel.after_update(view))


def _check_outcome(outcome: Outcome) -> None:
    for event in outcome.events:
        if event.kind == "monitor_failed":
            raise AssertionError(event.message)


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
    with _seeded():
        return _batch(samples)


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.mse_loss(model(batch.tensors["inputs"]), batch.tensors["targets"])


def _run(model: nn.Module, clock: Clock) -> Run:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    residency = GridResidency(model)
    residency.attach(optimizer)
    replayer = Replayer(model, _loss, _probe, device=_DEVICE, seed=0)
    return Run(
        model=model,
        optimizer=optimizer,
        weights=weight_geometry(model),
        device=_DEVICE,
        max_steps=_STEPS,
        clock=clock,
        replayer=replayer,
        residency=residency,
    )


def _poison(model: nn.Module) -> None:
    with torch.no_grad():
        next(model.parameters())[0, 0] = torch.nan


@contextmanager
def _seeded() -> Iterator[None]:
    """Seeded random numbers within, the caller's afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_equal, first, second))
    return bool(first == second or (first != first and second != second))
