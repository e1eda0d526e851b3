"""Running cells: run directories, data preparation, jobs. Free of torch.

Every run is a child process, so a crash, a kill or an out-of-memory ends one run and no other. Running the
cells again runs only what is missing.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from altgrad_core._files import sweep
from altgrad_core.errors import UserError
from altgrad_core.execution.jobs import Ended, Policy, run_jobs
from altgrad_core.execution.launch import (
    DEFAULT_THREADS,
    default_workers,
    store_options,
    threads_on_record,
    worker_command,
    worker_environment,
    worker_imports,
)
from altgrad_core.execution.options import Observer, RunOptions
from altgrad_core.execution.plan_file import HERE, SuiteHold, plan_of, refuse_another, write_plan
from altgrad_core.execution.preparation import prepare_data
from altgrad_core.execution.splitting import Splitter, parts_on_record, with_parts
from altgrad_core.interfaces.executor import Executor, Job
from altgrad_core.locks.lock import RunHeld, run_lock
from altgrad_core.planning.declaration import Suite
from altgrad_core.planning.identity import run_id
from altgrad_core.planning.plan import Cell
from altgrad_core.planning.spec import RunSpec
from altgrad_core.planning.spec_file import OtherLayout, dump_spec, load_spec
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.differences import differing, flat
from altgrad_core.results.run_directory import FAILED, FINISHED, RunDirectory, Status

_NAMES = {"suite", "condition", "axes", "trackers", "metrics"}
"""What of a spec names a run, or is done beside it."""


@dataclass(frozen=True)
class SuiteResult:
    """How the runs of a plan stand after running it."""

    directory: Path
    statuses: dict[str, Status]
    """By run id."""
    user_errors: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    """Run id -> what a reader calls it."""
    asked: frozenset[str] | None = None
    """The ids of the runs that were asked for; None for all."""
    unsent: Mapping[str, str] = field(default_factory=dict)
    """The ids of the runs that could not be sent to the store that they are to be kept on, and why."""

    @property
    def ok(self) -> bool:
        """Whether every run has a result (``diverged`` is one)."""
        return all(status.status in FINISHED for status in self.statuses.values())

    @property
    def ok_as_asked(self) -> bool:
        """Whether every run that was asked for has a result, where it is to be."""
        asked = self.statuses if self.asked is None else self.asked
        done = all(self.statuses[run_id].status in FINISHED for run_id in asked)
        return done and not self.unsent

    @property
    def failed(self) -> dict[str, Status]:
        """The runs that ended without a result, by id."""
        return {name: one for name, one in self.statuses.items() if one.status in FAILED}


def run_cells(
    suite: Suite,
    cells: Sequence[Cell],
    every: Sequence[Cell],
    executor: Executor,
    options: RunOptions,
    observer: Observer,
    hold: SuiteHold,
) -> SuiteResult:
    """Run what is missing of ``cells``. ``every`` cell of the suite is written to its ``plan.json``.

    Raises ``UserError`` before anything trains if the cells cannot be run, or another process is running
    others in the same folder.
    """
    # Two cells may be one run, where a tuned learning rate meets a given one: the first stands for it.
    unique = {cell.spec.id: (cell, cell.spec) for cell in reversed(cells) if cell.spec is not None}
    specs = {spec.id: spec for _, spec in reversed(unique.values())}
    folder = options.runs / suite.name
    directories = {run_id: RunDirectory(folder / run_id) for run_id in specs}
    sweep(folder)
    with hold.changing() as others:
        plan = plan_of(folder, suite, every, options.command)
        if others:
            refuse_another(folder, plan)
        for spec in specs.values():
            open_directory(directories[spec.id], spec, observer.message)
        write_plan(folder, plan, shared=others)
    missing = [spec for spec in specs.values() if not directories[spec.id].has_result()]
    observer.begin(len(specs), len(specs) - len(missing))
    todo = _chosen(missing, directories, options.only)
    for one in options.only:
        if one != "failed" and not any(run_id.startswith(one) for run_id in specs):
            observer.message(f"note: --only {one}: no id of these runs begins so")
    ended = Ended()
    if todo:
        ended = run_specs(todo, directories, executor, options, observer, hold)
    statuses = {name: ended.statuses.get(name) or directories[name].status() for name in specs}
    return SuiteResult(
        folder,
        statuses,
        tuple(dict.fromkeys(ended.mistakes)),
        {run_id: _label(spec) for run_id, spec in specs.items()},
        frozenset(spec.id for spec in todo) if options.only else None,
    )


def _chosen(
    missing: Sequence[RunSpec], directories: Mapping[str, RunDirectory], only: Sequence[str]
) -> list[RunSpec]:
    """The missing runs that were asked for."""
    return [
        spec
        for spec in missing
        if not only
        or ("failed" in only and directories[spec.id].status().status in FAILED)
        or spec.id.startswith(tuple(one for one in only if one != "failed"))
    ]


def run_specs(
    specs: Sequence[RunSpec],
    directories: dict[str, RunDirectory],
    executor: Executor,
    options: RunOptions,
    observer: Observer,
    hold: SuiteHold = HERE,
) -> Ended:
    """Prepare the data, and run these, whose directories are open. Raises ``UserError`` as above."""
    imports = (*worker_imports(specs), *hold.imports)
    device = prepare_data(specs, directories, imports, executor, options, observer, hold)
    threads = _threads(directories, options.threads or DEFAULT_THREADS, observer)
    known = {spec.id: spec for spec in specs}
    workers = options.workers or executor.workers(device, len(specs))
    return run_jobs(
        executor,
        [_job(s, directories[s.id], device, threads[s.id], imports, options) for s in specs],
        directories,
        {spec.id: spec.training.max_steps for spec in specs},
        observer,
        workers=workers or default_workers(device, len(specs)),
        timeout=options.timeout,
        policy=Policy(options.retries, options.fail_fast),
        splitter=Splitter(options.oom_accumulate, {s.id: s.training.batch_size for s in specs}),
        reopen=lambda name: open_directory(directories[name], known[name], observer.message),
        hold=hold,
    )


def open_directory(directory: RunDirectory, spec: RunSpec, say: Callable[[str], None]) -> None:
    """Create the run's directory, or check that the one that is there belongs to this version and run.

    A run whose process is gone without a word, as after a power cut, gets the status that says so. A
    spec that is not what its id was given to is written anew, and that is said.
    """
    text = dump_spec(spec)
    sweep(directory.path)
    fault = _fault(directory, spec, text) if directory.spec.exists() else ""
    if directory.spec.exists() and not fault and directory.has_result():
        return
    directory.path.mkdir(parents=True, exist_ok=True)
    # Held, another suite has it in hand.
    with contextlib.suppress(RunHeld), run_lock(directory.lock):
        if fault:
            say(f"note: {fault}; it is written anew")
            directory.write_spec(text)
        directory.create(text)
        status = directory.status()
        if status.status == "running":
            gone = {"status": "killed", "message": "its process and its launcher were ended"}
            directory.write_status(status.model_copy(update=gone))


def _fault(directory: RunDirectory, spec: RunSpec, text: str) -> str:
    """What is wrong with the spec that is there; empty if nothing. Raises for one of another version."""
    try:
        if directory.spec.read_bytes() == text.encode():
            return ""
        found = load_spec(directory.spec)
        if found.id == spec.id == run_id(found, catalog()):
            return ""
    except OtherLayout:
        raise
    except (UserError, OSError) as error:
        # damaged: the id, which is the folder's name, says what it was
        return str(error)
    apart = differing(*(flat(one.model_dump(mode="json", exclude=_NAMES)) for one in (found, spec)))
    told = "; ".join(f"{name} is {a}, and was {b}" for name, (a, b) in apart.items())
    return f"{directory.spec} was changed after it was written ({told or 'other names'})"


def _threads(
    directories: dict[str, RunDirectory], wanted: int, observer: Observer
) -> dict[str, int]:
    """CPU threads of each run: ``wanted``, but a run that was begun goes on with what it began with.

    Says so where a suite's runs are not all made with the same number.
    """
    recorded = {run_id: threads_on_record(d) for run_id, d in directories.items()}
    for number, count in sorted(Counter(n for n in recorded.values() if n).items()):
        if number != wanted:
            observer.message(
                f"note: {count} of {len(directories)} runs were begun with --threads {number} and keep "
                f"it; the others get {wanted}. Runs with different numbers of threads can differ in "
                f"their last bits: give --threads {number} to keep all alike."
            )
    return {run_id: number or wanted for run_id, number in recorded.items()}


def _job(
    spec: RunSpec,
    directory: RunDirectory,
    device: str,
    threads: int,
    imports: tuple[str, ...],
    options: RunOptions,
) -> Job:
    more = store_options(options.store)
    job = Job(
        run_id=spec.id,
        label=_label(spec),
        directory=directory.path,
        command=worker_command(directory, device, threads, options.cache, *more),
        environment=worker_environment(threads),
        preload=imports,
        stall_timeout=options.stall_timeout,
        signs=(directory.status_file, directory.metrics, directory.log),
        fetches=bool(options.store),
    )
    return with_parts(job, max(options.micro_batches, parts_on_record(directory)))


def _label(spec: RunSpec) -> str:
    return f"{spec.condition} seed {spec.seed}"
