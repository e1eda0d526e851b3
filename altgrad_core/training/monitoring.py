"""The panel: calls monitors where they are due, outlives their failures, fetches their metrics.

Metrics stay on the device until :meth:`MonitorPanel.after_update`, which moves all of a step in one
transfer. In a step where no monitor is due nothing is computed and nothing waits for the device.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Event, Monitor, Observation, RunView
from altgrad_core.training.view import StepView


@dataclass
class Outcome:
    """What the monitors saw, on the host, and what they ask for: see ``Observation``."""

    metrics: dict[str, float] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    stop: str | None = None
    skip_update: bool = False
    shifts: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Slot:
    name: str
    monitor: Monitor
    on: bool = True


class MonitorPanel:
    """Holds the monitors of a run.

    A monitor that raises, returns something that is not a metric, or gives a metric that was
    already given in the same step is switched off, which is recorded as an event of kind
    ``monitor_failed``. The others and the run go on.
    """

    def __init__(self, monitors: Sequence[tuple[str, Monitor]]) -> None:
        slots = [_Slot(name, monitor) for name, monitor in monitors]
        # What the others measure is what the optimizer gets: interventions come first.
        self._slots = sorted(slots, key=lambda slot: not slot.monitor.intervenes)
        self._due: list[_Slot] = []
        self._pending = Observation()

    def start(self, run: RunView) -> Outcome:
        """Before the first step; after a restart again, before :meth:`load_state_dict`."""
        self._observe(self._slots, "start", run)
        return self._deliver()

    def before_update(self, view: StepView) -> Outcome:
        """After the backward pass, before the optimizer's step.

        What the monitors return here comes with :meth:`after_update`, so that one transfer
        serves the whole step; the outcome of this call says no more than ``skip_update``.
        """
        self._due = [slot for slot in self._slots if self._is_due(slot, view.step)]
        self._observe(self._due, "before_update", view)
        return Outcome(skip_update=self._pending.skip_update)

    def after_update(self, view: StepView) -> Outcome:
        """After the optimizer's step, while the gradients are still there."""
        view.mark_updated()
        self._observe(self._due, "after_update", view)
        return self._deliver()

    def abandon(self) -> None:
        """The step came to nothing: what monitors gave before its update is dropped, but for events."""
        self._pending = Observation(events=self._pending.events)

    def evaluation(self, run: RunView, metrics: Mapping[str, float]) -> Outcome:
        """After every evaluation, whether a monitor is due or not."""
        self._observe(self._slots, "evaluation", run, metrics)
        return self._deliver()

    def end(self, run: RunView) -> Outcome:
        """When the run has ended by itself."""
        self._observe(self._slots, "end", run)
        return self._deliver()

    def state_dict(self) -> dict[str, Any]:
        """State of every monitor, and which ones are switched off."""
        saved = []
        for slot in self._slots:
            state = self._guarded(slot, "state_dict") or {}
            saved.append({"name": slot.name, "on": slot.on, "state": state})
        return {"monitors": saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up :meth:`state_dict`. Raises ``ValueError`` if it belongs to other monitors."""
        saved = state["monitors"]
        found, wanted = [entry["name"] for entry in saved], [slot.name for slot in self._slots]
        if found != wanted:
            raise ValueError(f"the saved monitors are {found}, those of this run are {wanted}")
        for slot, entry in zip(self._slots, saved, strict=True):
            slot.on = slot.on and entry["on"]
            self._guarded(slot, "load_state_dict", entry["state"])

    def _is_due(self, slot: _Slot, step: int) -> bool:
        return bool(self._guarded(slot, "due", step))

    def _observe(self, slots: Sequence[_Slot], hook: str, *arguments: Any) -> None:
        with torch.no_grad():
            for slot in slots:
                self._guarded(slot, hook, *arguments, merge=True)

    def _guarded(self, slot: _Slot, hook: str, *arguments: Any, merge: bool = False) -> Any:
        """What the hook returns; None if the monitor is off, or failed and is now off."""
        if not slot.on:
            return None
        try:
            value = getattr(slot.monitor, hook)(*arguments)
            if merge and value is not None:
                self._merge(slot, value)
            return value
        except Exception as error:
            slot.on = False
            self._pending.events.append(_failure(slot, hook, error))
            return None

    def _merge(self, slot: _Slot, seen: Observation) -> None:
        for name, value in seen.metrics.items():
            check_metric(name, value)
            if name in self._pending.metrics:
                raise ValueError(f"the metric {name!r} was already given in this step")
        if (seen.skip_update or seen.shifts) and not slot.monitor.intervenes:
            raise ValueError(
                "only a monitor with intervenes = True may skip updates or shift formats"
            )
        self._pending.skip_update |= seen.skip_update
        self._pending.shifts.update(seen.shifts)
        self._pending.metrics.update(seen.metrics)
        self._pending.events.extend(seen.events)
        if seen.stop is not None and self._pending.stop is None:
            self._pending.stop = f"monitor {slot.name}: {seen.stop}"

    def _deliver(self) -> Outcome:
        pending, self._pending = self._pending, Observation()
        return Outcome(
            to_host(pending.metrics),
            pending.events,
            pending.stop,
            pending.skip_update,
            pending.shifts,
        )


def check_metric(name: str, value: object) -> None:
    """Raise ``ValueError`` or ``TypeError`` unless it is ``family/layer/metric`` and a number."""
    parts = name.split("/")
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"the metric name {name!r} is not of the form family/layer/metric")
    if isinstance(value, Tensor):
        if value.ndim or value.is_complex():
            raise ValueError(
                f"the metric {name!r} must be a real 0-d tensor, not {value.dtype} of shape "
                f"{tuple(value.shape)}"
            )
    elif not isinstance(value, int | float):
        raise TypeError(
            f"the metric {name!r} must be a float or a 0-d tensor, not {type(value).__name__}"
        )


def to_host(metrics: Mapping[str, float | Tensor]) -> dict[str, float]:
    """The metrics as floats, in order; the tensors of each device come over in one transfer."""
    groups: dict[torch.device, dict[torch.dtype, list[str]]] = {}
    host: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Tensor):
            groups.setdefault(value.device, {}).setdefault(value.dtype, []).append(name)
            host[name] = 0.0
        else:
            host[name] = float(value)
    for by_dtype in groups.values():
        stacks = [torch.stack([_tensor(metrics[name]) for name in n]) for n in by_dtype.values()]
        values = torch.cat([stack.to(torch.float64) for stack in stacks]).tolist()
        host.update(zip((name for n in by_dtype.values() for name in n), values, strict=True))
    return host


def _tensor(value: float | Tensor) -> Tensor:
    assert isinstance(value, Tensor)
    return value.detach()


def _failure(slot: _Slot, hook: str, error: Exception) -> Event:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    message = (
        f"the monitor {slot.name!r} failed in {hook} and is switched off: "
        f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"
    )
    return Event("monitor_failed", "all", message)
