"""What the runs of a suite take beside their bare training steps: start, data, evaluation, checkpoints and records.

The suite is run as ``altgrad-bench run`` does, one run at a time, in a folder that is thrown away. When a run has
ended, as many bare steps of it are taken in this process (see :mod:`.bare_steps`), monitors included. The last row
is the whole suite: what lies between its runs counts there.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from altgrad_core.errors import UserError
from altgrad_core.execution.assemble import prepare_task, resolve_device
from altgrad_core.execution.bare_steps import BareSteps
from altgrad_core.execution.environment import describe_environment
from altgrad_core.execution.options import RunOptions
from altgrad_core.execution.runner import run_suite
from altgrad_core.execution.speeds import Speeds, Timing, short, summary
from altgrad_core.execution.step_speed import conditions
from altgrad_core.interfaces.executor import Job
from altgrad_core.interfaces.task import Task
from altgrad_core.planning.plan import Plan
from altgrad_core.planning.spec import RunSpec
from altgrad_core.results.run_directory import Status
from altgrad_core.training.determinism import make_deterministic

WHOLE = "the suite"
"""The name of the last row."""


@dataclass(frozen=True)
class RunSpeed(Timing):
    """Milliseconds of a whole run, and the ratio to its bare steps; ``bare_ms`` is their median."""

    condition: str
    bare_ms: float


@dataclass(frozen=True)
class SuiteSpeeds(Speeds[RunSpeed]):
    """How long runs take; those of two files with the same suite and settings compare."""

    keys: ClassVar = ("condition",)
    suite: str


def measure_suite(
    plan: Plan,
    *,
    device: str,
    cache: Path,
    rounds: int,
    threads: int,
    log: Callable[[str], None] = lambda text: None,
) -> SuiteSpeeds:
    """Run the first run of each condition of ``plan``, ``rounds`` times.

    Raises ``UserError`` where none can be run, or one ends without a result.
    """
    torch.set_num_threads(threads)
    place = resolve_device(device)
    make_deterministic(place)
    specs, left_out = conditions(plan)
    wanted = {spec.id for spec in specs.values()}
    cells = tuple(cell for cell in plan.cells if cell.spec is not None and cell.spec.id in wanted)
    bare = _Bare(specs, place, cache, log)
    log(f"{len(specs)} runs, {rounds} rounds, {threads} thread(s), {place}")
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            options = RunOptions(Path(folder), str(place), 1, threads, cache=cache)
            bare.suite_begins()
            result = run_suite(replace(plan, cells=cells), options, bare)
            bare.suite_ends()
        for status in result.failed.values():
            raise UserError(
                f"a run of {plan.suite.name} ended with {status.status}: {status.message}"
            )
    rows = [
        RunSpeed(
            *summary(own, bare.steps[name]), name, short(sorted(bare.steps[name])[rounds // 2])
        )
        for name, own in bare.runs.items()
    ]
    environment = describe_environment(place, next(iter(specs.values())).distributions)
    return SuiteSpeeds(tuple(rows), left_out, environment, rounds, plan.suite.name)


class _Bare:
    """Watches a suite being run, and takes the bare steps of each run when it has ended."""

    def __init__(
        self,
        specs: dict[str, RunSpec],
        device: torch.device,
        cache: Path,
        log: Callable[[str], None],
    ) -> None:
        self.runs: dict[str, list[float]] = {name: [] for name in (*specs, WHOLE)}
        self.steps: dict[str, list[float]] = {name: [] for name in (*specs, WHOLE)}
        self._by_id = {spec.id: (name, spec) for name, spec in specs.items()}
        self._device, self._cache, self._log = device, cache, log
        self._tasks: dict[str, Task] = {}
        self._own = self._begin = self._started = self._sum = 0.0

    def suite_begins(self) -> None:
        """The clock starts; what is done here is not the suite's."""
        self._own = self._sum = 0.0
        self._begin = time.perf_counter()

    def suite_ends(self) -> None:
        """The clock stops."""
        self.runs[WHOLE].append(1000 * (time.perf_counter() - self._begin - self._own))
        self.steps[WHOLE].append(self._sum)

    def message(self, text: str) -> None:
        """Nothing is to be said."""

    def begin(self, total: int, done: int) -> None:
        """Nothing is to be said."""

    def started(self, job: Job, max_steps: int) -> None:
        """A run's process was started."""
        self._started = time.perf_counter()

    def progress(self, job: Job, status: Status) -> None:
        """Nothing is to be said."""

    def tried_again(self, job: Job, status: Status, how: str) -> None:
        """Nothing is to be said."""

    def finished(self, job: Job, status: Status) -> None:
        """A run has ended: now its steps by themselves, as many as it took."""
        ended = time.perf_counter()
        name, spec = self._by_id[job.run_id]
        self.runs[name].append(1000 * (ended - self._started))
        key = spec.task.model_dump_json()
        self._tasks[key] = self._tasks.get(key) or prepare_task(spec.task, self._cache, self._log)
        with tempfile.TemporaryDirectory() as folder:
            run = BareSteps(spec, self._tasks[key], self._device, Path(folder))
            run.portion(1, 1)  # warms up
            self.steps[name].append(run.portion(1, max(status.step, 1)))
        self._sum += self.steps[name][-1]
        self._own += time.perf_counter() - ended
        self._log(f"{name}: {status.status}")
