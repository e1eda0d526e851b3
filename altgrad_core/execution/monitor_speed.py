"""What monitors cost: step times with each monitor alone and with all, as ratios to none.

Every variant is a run of its own with the same model, data and seed, all in one process. In each round
every variant takes one step in which its monitor measures and one in which it does not, in turn, so
that a machine whose speed drifts slows all alike. With the medians ``t_due`` and ``t_other`` of a
monitor, and ``t_none`` of the variant without monitors, the average step at the monitor's interval k is

    t = t_other + (t_due − t_other) / k        ratio = t / t_none

*All together* is measured as it is lived through: a window of consecutive steps, in small portions in
turn with the same steps without monitors, so that work that monitors share counts once. To this is
added what those cost whose interval is longer than the window, as above.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from altgrad_core.execution.assemble import prepare_task, resolve_device
from altgrad_core.execution.bare_steps import BareSteps, interval_of, longest_interval
from altgrad_core.execution.environment import describe_environment
from altgrad_core.execution.interleave import interleaved
from altgrad_core.execution.speeds import Speeds
from altgrad_core.interfaces.task import Task
from altgrad_core.planning.spec import PluginChoice, RunSpec
from altgrad_core.training.determinism import make_deterministic

NONE, ALL = "none", "all"
WINDOW = 200
"""Steps over which all monitors are measured together."""
_WINDOWS, _PORTION = 3, 10
_FAR = 10**7
"""A step where no monitor has been before; a multiple of every usual interval."""

_Times = Mapping[tuple[str, bool], Sequence[float]]
"""Milliseconds of the steps of each variant: those in which its monitor measures, and the others."""


@dataclass(frozen=True)
class MonitorCost:
    """Median milliseconds of a step: in which the monitor measures, and in which it does not."""

    name: str
    interval: int
    due: float
    other: float
    average: float
    ratio: float


@dataclass(frozen=True)
class MonitorSpeeds(Speeds[MonitorCost]):
    """The cost of each monitor, and of all: ``none`` comes first, ``all`` last."""

    keys: ClassVar = ("name",)


def measure_monitors(
    spec: RunSpec,
    *,
    device: str,
    cache: Path,
    rounds: int,
    threads: int,
    log: Callable[[str], None],
) -> MonitorSpeeds:
    """The cost of each monitor of ``spec``, and of all.

    Raises ``UserError`` where the data or the device are not there.
    """
    torch.set_num_threads(threads)
    place = resolve_device(device)
    make_deterministic(place)  # as in a run: kernels that are not may be faster
    task = prepare_task(spec.task, cache, log)
    monitors = {choice.name: (choice,) for choice in spec.monitors}
    variants = {NONE: (), **monitors, ALL: spec.monitors}
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: _Variant(spec, choices, task, place, Path(folder) / name)
            for name, choices in variants.items()
        }
        log(f"{len(runs) - 2} monitors, {rounds} rounds, {place}")
        calls = {
            (name, due): variant.due if due else variant.other
            for name, variant in runs.items()
            for due in (True, False)
            if name != ALL
        }
        times = interleaved(calls, place, rounds=rounds)
        log(f"all together: {_WINDOWS} windows of {WINDOW} steps")
        intervals = {c.name: interval_of(c) for c in spec.monitors}
        singles = _costs(times, intervals)
        together = _together(runs[NONE], runs[ALL])
    rows = (*singles, _all(singles, together))
    return MonitorSpeeds(rows, {}, describe_environment(place, spec.distributions), rounds)


class _Variant:
    """One run with some monitors, in turn with others."""

    def __init__(
        self,
        spec: RunSpec,
        monitors: Sequence[PluginChoice],
        task: Task,
        device: torch.device,
        folder: Path,
    ) -> None:
        spec = spec.model_copy(update={"monitors": tuple(monitors)})
        self._steps = BareSteps(spec, task, device, folder)
        self.portion = self._steps.portion
        self._interval = longest_interval(monitors)
        self._step = 0

    def due(self) -> None:
        """A step in which the monitor measures."""
        self._step += 2 * self._interval
        self._steps.step(self._step)

    def other(self) -> None:
        """The step after it, in which it does not."""
        self._steps.step(self._step + 1)


def _costs(times: _Times, intervals: Mapping[str, int]) -> list[MonitorCost]:
    """``none``, and each monitor alone."""
    none = statistics.median([*times[NONE, True], *times[NONE, False]])
    found = [MonitorCost(NONE, 0, none, none, none, 1.0)]
    for name, interval in intervals.items():
        due, other = (statistics.median(times[name, kind]) for kind in (True, False))
        average = other + (due - other) / interval
        found.append(MonitorCost(name, interval, due, other, average, average / none))
    return found


def _together(none: _Variant, every: _Variant) -> float:
    """The median over windows of the ratio of all monitors to none."""
    ratios = []
    for window in range(_WINDOWS + 1):
        spent = [0.0, 0.0]
        for first in range(1, WINDOW, _PORTION):
            start = _FAR + window * WINDOW + first
            for index, variant in enumerate((none, every)):
                spent[index] += variant.portion(start, _PORTION)
        ratios.append(spent[1] / spent[0])
    return statistics.median(ratios[1:])  # the first warms up


def _all(singles: Sequence[MonitorCost], together: float) -> MonitorCost:
    none = singles[0].average
    rare = [cost for cost in singles[1:] if cost.interval > WINDOW]
    ratio = together + sum((cost.due - cost.other) / cost.interval for cost in rare) / none
    return MonitorCost(ALL, 0, none, none, ratio * none, ratio)
