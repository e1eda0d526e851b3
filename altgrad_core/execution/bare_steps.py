"""The training steps of a run by themselves: no evaluation, no checkpoint, no record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from altgrad_core.execution.assemble import assemble
from altgrad_core.execution.interleave import timed
from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.task import Task
from altgrad_core.planning.spec import PluginChoice, RunSpec
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.run_directory import RecordKind
from altgrad_core.training.loop import Trainer

_NEVER = 10**9


class BareSteps:
    """One run of ``spec`` at a constant learning rate, step by step; no step is its last."""

    def __init__(self, spec: RunSpec, task: Task, device: torch.device, folder: Path) -> None:
        quiet = dict.fromkeys(("log_interval", "eval_interval", "checkpoint_interval"), _NEVER)
        changes = {**quiet, "max_steps": _NEVER, "schedule": "constant"}
        training = spec.training.model_copy(update=changes)
        parts, _ = assemble(spec.model_copy(update={"training": training}), task, device)
        self._trainer = Trainer(parts, training, spec.seed, _Silence(), folder / "state.pt")
        self._trainer.start()
        parts.model.train()
        self._device = device

    def step(self, number: int) -> None:
        """Take step ``number``: what is due goes by it."""
        self._trainer.step(number)

    def portion(self, first: int, count: int) -> float:
        """Milliseconds of ``count`` consecutive steps from ``first`` on."""
        steps = range(first, first + count)
        return sum(timed(partial(self.step, step), self._device) for step in steps)


def longest_interval(monitors: Sequence[PluginChoice]) -> int:
    """The most steps between two measurements of one of ``monitors``; 1 for none."""
    return max(map(interval_of, monitors), default=1)


def interval_of(monitor: PluginChoice) -> int:
    """Steps between its measurements."""
    settings = catalog().validate("monitor", monitor.name, monitor.settings)
    return int(getattr(settings, "interval", 1))


class _Silence:
    """A sink that forgets."""

    def record(self, step: int, kind: RecordKind, metrics: Mapping[str, float]) -> None: ...

    def event(self, step: int, event: Event) -> None: ...

    def progress(self, step: int) -> None: ...

    def sync(self) -> int:
        return 0

    def rewind(self, position: int) -> None: ...

    def begins(self, step: int, why: str = "") -> None: ...
