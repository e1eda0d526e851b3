"""What an executor costs per cell: jobs that import what a run imports, and do nothing.

``python -m altgrad_core.testing.overhead NAME [KEY=VALUE ...] [--jobs N]`` measures one executor with these settings,
one job after another. ``--cells`` and ``--gpus`` have the rest of a suite simulated with what was measured, for cells
of ``--minutes`` each: see :func:`makespan`.
"""

from __future__ import annotations

import argparse
import heapq
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import yaml

from altgrad_core.execution.launch import worker_environment
from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.registry.catalog import catalog

_IDLE = "altgrad_core.testing.idle"
_SPREAD = 0.5
"""Standard deviation of the logarithm of a cell's length: some take several times as long as others."""


@dataclass(frozen=True)
class Overhead:
    """Seconds.

    first:
        until the first job had ended.
    cells:
        between the ends of one job and the next.
    own:
        of processor time that the launcher itself took for each job.
    """

    first: float
    cells: tuple[float, ...]
    own: float

    def __str__(self) -> str:
        low, middle, high = statistics.quantiles(self.cells, n=4)
        return (
            f"first {self.first:.2f} s; then per cell median {middle:.3f} s, quartiles {low:.3f} to {high:.3f} s "
            f"(n = {len(self.cells)}); the launcher's own {1000 * self.own:.1f} ms of processor time"
        )


def measure(executor: Executor, jobs: int, folder: Path) -> Overhead:
    """Run ``jobs`` jobs one after another. Raises ``AssertionError`` if one does not end well."""
    ends: list[float] = []

    def finished(job: Job, end: Exit) -> None:
        if end != Exit(0):
            raise AssertionError(f"{job.label}: {end}; see {job.directory / 'log.txt'}")
        ends.append(time.perf_counter())

    todo = [_job(folder / f"idle{number}") for number in range(jobs)]
    begin, used = time.perf_counter(), _processor_time()
    executor.execute(
        todo,
        workers=1,
        timeout=None,
        started=lambda job: None,
        finished=finished,
        tick=lambda: None,
    )
    cells = tuple(later - sooner for sooner, later in pairwise(ends))
    return Overhead(ends[0] - begin, cells, (_processor_time() - used) / jobs)


def _job(directory: Path) -> Job:
    directory.mkdir(parents=True)
    command = (sys.executable, "-P", "-m", _IDLE)
    imports = ("altgrad_core.execution.worker", "altgrad_core.execution.ready")
    return Job(directory.name, directory.name, directory, command, worker_environment(1), imports)


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def makespan(
    cells: int,
    gpus: int,
    *,
    seconds: float,
    overhead: Sequence[float],
    first: float,
    batch: int | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Seconds that a suite would take, and those of its cells shared out evenly, with no overhead and no idle GPU.

    seconds:
        of the mean cell; lengths are log-normal.
    overhead, first:
        as measured: one of the former is added to each cell, the latter to the first cell of each task.
    batch:
        how many cells a task makes, one after another; None for one task on each GPU, which takes the next cell
        whenever it is free.
    """
    draw = random.Random(seed)
    lengths = [seconds * draw.lognormvariate(-(_SPREAD**2) / 2, _SPREAD) for _ in range(cells)]
    each = [length + draw.choice(overhead) for length in lengths]
    size = batch or 1
    tasks = [sum(each[i : i + size]) + (first if batch else 0.0) for i in range(0, cells, size)]
    free = [0.0 if batch else first] * gpus
    for length in tasks:
        heapq.heappush(free, heapq.heappop(free) + length)
    return max(free), sum(lengths) / gpus


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("executor")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--cells", type=int)
    parser.add_argument("--gpus", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--batch", type=int, help="cells of a task")
    options = parser.parse_args()
    pairs = (text.partition("=") for text in options.settings)
    settings = {key: yaml.safe_load(value) for key, _, value in pairs}
    with (
        tempfile.TemporaryDirectory(dir=".") as folder,
        closing(catalog().build("executor", options.executor, settings)) as executor,
    ):
        found = measure(executor, options.jobs, Path(folder))
    print(f"{options.executor} {' '.join(options.settings)}: {found}")
    if options.cells:
        took, least = makespan(
            options.cells,
            options.gpus,
            seconds=60 * options.minutes,
            overhead=found.cells,
            first=found.first,
            batch=options.batch,
        )
        said = f"{options.cells} cells of {options.minutes:g} minutes on {options.gpus} GPUs"
        print(f"{said}: {took / 3600:.2f} h, {took / least - 1:.1%} more than without overhead")


if __name__ == "__main__":
    main()
