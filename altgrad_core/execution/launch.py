"""The command, environment and number of processes and threads with which workers are started."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import Kind, Offer
from altgrad_core.planning.spec import PluginChoice, RunSpec
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.objects import read_environment
from altgrad_core.results.run_directory import RunDirectory

_MAX_CPU_WORKERS = 8
DEFAULT_THREADS = 1
"""CPU threads of every run, however many run at once: sums depend on it in their last bits, so it must not
follow from the machine, from ``--workers``, or from how many runs are still to go."""


_WORKER = "altgrad_core.execution.worker"
_IMPORTED = (_WORKER, "altgrad_core.execution.ready")
"""What every worker imports."""


def worker_command(
    directory: RunDirectory, device: str, threads: int, cache: Path, *more: str
) -> tuple[str, ...]:
    """The command that runs the cell in ``directory``; ``more`` goes behind it.

    ``-P`` keeps the current folder out of the import path: a ``random.py`` there is no library.
    """
    return (
        sys.executable,
        *("-P", "-m", _WORKER, str(directory.path.resolve())),
        *("--device", device, "--threads", str(threads), "--cache", str(cache.resolve())),
        *more,
    )


def store_options(url: str) -> tuple[str, ...]:
    """What follows a worker's command where runs are kept on a store."""
    return ("--store", url) if url else ()


def worker_environment(threads: int) -> dict[str, str]:
    """What is added to a worker's environment."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def worker_imports(specs: Sequence[RunSpec]) -> tuple[str, ...]:
    """The modules that the workers of all these cells import.

    What only some of them use is left out: an import may change more than it says, and no cell is to be
    touched by what belongs to another.
    """
    common = [offer for offer in _offers(specs[0]) if all(offer in _offers(s) for s in specs)]
    targets = [offer.target.partition(":")[0] for offer in common]
    lazy = [name for offer in common for name in offer.imports]
    return tuple(dict.fromkeys((*_IMPORTED, *targets, *lazy)))


def _offers(spec: RunSpec) -> list[Offer]:
    """The plugins that a cell names for itself, in the order in which a worker loads them."""
    named: list[tuple[Kind, PluginChoice]] = [("tracker", choice) for choice in spec.trackers]
    named += [("task", spec.task), ("optimizer", spec.optimizer)]
    named += [("monitor", choice) for choice in spec.monitors]
    return [catalog().get(kind, choice.name).offer for kind, choice in named]


def threads_on_record(directory: RunDirectory) -> int | None:
    """The thread count of a run that is finished or can go on from a checkpoint; None for any other."""
    if not (directory.checkpoint.exists() or directory.has_result()):
        return None
    try:
        threads = read_environment(directory.environment).get("threads")
    except UserError:  # the run that is made anew writes it anew
        return None
    return threads or None


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers(device: str, runs: int) -> int:
    """One run at a time on a GPU; on the CPU one per core, since small models gain little from threads."""
    return 1 if device.startswith("cuda") else max(1, min(cores(), _MAX_CPU_WORKERS, runs))
