"""How long a training step of a suite's conditions takes, monitors included, beside the same model in plain bf16.

Every condition is a run of its own with the same data and seed, all in one process. A round is as many consecutive
steps as the longest interval of a monitor, so that each measures as often as in a run, but no more than a run has; all
take turns in small portions of it, so that a machine whose speed drifts slows all alike. The rival is the first
condition with nothing but ``quantization.format: bf16``: its ratio is 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from altgrad_core.errors import UserError
from altgrad_core.execution.assemble import prepare_task, resolve_device
from altgrad_core.execution.bare_steps import BareSteps, longest_interval
from altgrad_core.execution.environment import describe_environment
from altgrad_core.execution.speeds import Speeds, Timing, summary, told
from altgrad_core.interfaces.task import Task
from altgrad_core.planning.plan import Plan
from altgrad_core.planning.spec import RunSpec
from altgrad_core.quantization.settings import QuantizationSettings
from altgrad_core.training.determinism import make_deterministic

PLAIN = "plain bf16"
"""The name under which the rival stands among the conditions."""
_PORTION = 10


@dataclass(frozen=True)
class ConditionSpeed(Timing):
    """Milliseconds of a step under one condition, on average over a round, and the ratio to plain bf16."""

    condition: str


@dataclass(frozen=True)
class ConditionSpeeds(Speeds[ConditionSpeed]):
    """How long steps take; those of two files with the same suite, settings and steps compare."""

    keys: ClassVar = ("condition",)
    suite: str
    steps: int


def measure_steps(
    plan: Plan,
    *,
    device: str,
    cache: Path,
    rounds: int,
    threads: int,
    steps: int | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> ConditionSpeeds:
    """Time the step of every condition of ``plan``; ``steps`` of a round, if not the longest interval.

    Raises ``UserError`` where no condition can be run, or data or device are not there.
    """
    torch.set_num_threads(threads)
    place = resolve_device(device)
    make_deterministic(place)  # as in a run: kernels that are not may be faster
    specs, left_out = conditions(plan)
    first = next(iter(specs.values()))
    plain = first.model_copy(update={"quantization": QuantizationSettings()})
    window = steps or max(
        min(longest_interval(spec.monitors), spec.training.max_steps) for spec in specs.values()
    )
    tasks: dict[str, Task] = {}
    for spec in specs.values():
        key = spec.task.model_dump_json()
        tasks[key] = tasks.get(key) or prepare_task(spec.task, cache, log)
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: BareSteps(spec, tasks[spec.task.model_dump_json()], place, Path(folder) / name)
            for name, spec in {PLAIN: plain, **specs}.items()
        }
        log(
            f"{len(specs)} conditions, {rounds} rounds of {window} steps, {threads} thread(s), {place}"
        )
        times = _in_turn(runs, window, rounds, log)
    rows = [ConditionSpeed(*summary(own, times[PLAIN]), name) for name, own in times.items()]
    environment = describe_environment(place, first.distributions)
    return ConditionSpeeds(tuple(rows), left_out, environment, rounds, plan.suite.name, window)


def conditions(plan: Plan) -> tuple[dict[str, RunSpec], dict[str, str]]:
    """The first run of each condition, and why the others have none.

    Raises ``UserError`` if none has one.
    """
    specs: dict[str, RunSpec] = {}
    left_out: dict[str, str] = {}
    for cell in plan.cells:
        if cell.spec is not None:
            specs.setdefault(cell.label, cell.spec)
        else:
            left_out[cell.label] = cell.skip or (
                "its learning rate is still to be tuned; give one: --set training.learning_rate=1e-3"
            )
    if not specs:
        raise UserError(
            f"no condition of {plan.suite.name} can be run: "
            + "; ".join(f"{name}: {why}" for name, why in left_out.items())
        )
    return specs, {name: why for name, why in left_out.items() if name not in specs}


def _in_turn(
    runs: Mapping[str, BareSteps], window: int, rounds: int, log: Callable[[str], None]
) -> dict[str, list[float]]:
    """Milliseconds of a step, one for each run and round."""
    for run in runs.values():
        run.portion(1, 2)  # warms up: the first allocates, and every monitor measures in it
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in told(rounds, log):
        begin, spent = number * window + 1, dict.fromkeys(runs, 0.0)
        for first in range(begin, begin + window, _PORTION):
            count = min(_PORTION, begin + window - first)
            for name, run in runs.items():
                spent[name] += run.portion(first, count)
        for name, milliseconds in spent.items():
            times[name].append(milliseconds / window)
    return times
