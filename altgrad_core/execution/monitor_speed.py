"""What monitors cost: step times with each monitor alone and with all, as ratios to none.

Every variant is a run of its own with the same model, data and seed. In each round every variant takes
one step in which its monitors measure and one in which none is due, in turn, in one process, so that
a machine whose speed drifts slows all alike. With the medians ``t_due`` and ``t_other`` of a
monitor, and ``t_none`` of the variant without monitors, the average step at the monitor's interval k is

    t = t_other + (t_due − t_other) / k        ratio = t / t_none

The variant ``all`` is measured in steps where none is due, and what each adds when due is added at
its own interval. A round with every monitor due at once would weigh them by no interval at all.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from altgrad_core.execution.assemble import assemble, prepare_task, resolve_device
from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.task import Task
from altgrad_core.planning.spec import PluginChoice, RunSpec
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.run_directory import RecordKind
from altgrad_core.training.loop import Trainer

NONE, ALL = "none", "all"
_NEVER = 10**9
_WARMUP = 3


@dataclass(frozen=True)
class MonitorCost:
    """Median milliseconds of a step: in which the monitor measures, and in which it does not."""

    name: str
    interval: int
    due: float
    other: float
    average: float
    ratio: float


def measure_monitors(
    spec: RunSpec,
    *,
    device: str,
    cache: Path,
    rounds: int,
    threads: int,
    log: Callable[[str], None],
) -> tuple[MonitorCost, ...]:
    """The cost of each monitor of ``spec``, and of all: ``none`` comes first, ``all`` last.

    Raises ``UserError`` where the data or the device are not there.
    """
    torch.set_num_threads(threads)
    place = resolve_device(device)
    task = prepare_task(spec.task, cache, log)
    monitors = {choice.name: (choice,) for choice in spec.monitors}
    variants = {NONE: (), **monitors, ALL: spec.monitors}
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: _Variant(spec, choices, task, place, Path(folder) / name)
            for name, choices in variants.items()
        }
        log(f"{len(runs)} variants, {rounds} rounds, {place}")
        for number in range(_WARMUP + rounds):
            for variant in runs.values():
                variant.round(keep=number >= _WARMUP)
    return tuple(_costs(runs, {c.name: _interval(c) for c in spec.monitors}))


class _Variant:
    """One run with some monitors, and the times of its steps."""

    def __init__(
        self,
        spec: RunSpec,
        monitors: Sequence[PluginChoice],
        task: Task,
        device: torch.device,
        folder: Path,
    ) -> None:
        quiet = dict.fromkeys(("log_interval", "eval_interval", "checkpoint_interval"), _NEVER)
        changes = {**quiet, "max_steps": _NEVER, "schedule": "constant"}
        training = spec.training.model_copy(update=changes)
        spec = spec.model_copy(update={"monitors": tuple(monitors), "training": training})
        parts, _ = assemble(spec, task, device)
        self._trainer = Trainer(parts, training, spec.seed, _Silence(), folder / "state.pt")
        self._trainer.start()
        parts.model.train()
        self._device = device
        self._interval = max((_interval(choice) for choice in monitors), default=1)
        self._count = 0
        self.due: list[float] = []
        self.other: list[float] = []

    def round(self, *, keep: bool) -> None:
        """A step in which the monitor measures (of several: the rarest), and one in which none does."""
        self._count += 1
        base = 2 * self._count * self._interval
        for steps, number in ((self.due, base), (self.other, base + 1)):
            seconds = self._timed(number)
            if keep:
                steps.append(1000 * seconds)

    def _timed(self, step: int) -> float:
        self._wait()
        start = time.perf_counter()
        self._trainer.step(step)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class _Silence:
    """A sink that forgets."""

    def record(self, step: int, kind: RecordKind, metrics: Mapping[str, float]) -> None: ...

    def event(self, step: int, event: Event) -> None: ...

    def progress(self, step: int) -> None: ...

    def sync(self) -> int:
        return 0

    def rewind(self, position: int) -> None: ...


def _interval(choice: PluginChoice) -> int:
    settings = catalog().validate("monitor", choice.name, choice.settings)
    return int(getattr(settings, "interval", 1))


def _costs(runs: Mapping[str, _Variant], intervals: Mapping[str, int]) -> list[MonitorCost]:
    none = statistics.median([*runs[NONE].due, *runs[NONE].other])
    found = [MonitorCost(NONE, 0, none, none, none, 1.0)]
    added = 0.0
    for name, interval in intervals.items():
        due, other = (statistics.median(t) for t in (runs[name].due, runs[name].other))
        extra = (due - other) / interval
        added += extra
        found.append(MonitorCost(name, interval, due, other, other + extra, (other + extra) / none))
    due, other = (statistics.median(t) for t in (runs[ALL].due, runs[ALL].other))
    average = other + added
    found.append(MonitorCost(ALL, 0, due, other, average, average / none))
    return found
