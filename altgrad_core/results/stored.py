"""Finding and reading what runs have left on the disk: plans, run directories and their histories.

Nothing here needs torch or pandas; the tables are made in :mod:`altgrad_core.results.collect`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from altgrad_core.errors import UserError
from altgrad_core.interfaces.layout import LAYOUT
from altgrad_core.interfaces.metric import Metric, shared
from altgrad_core.results.kept import StoredPlan, StoredSpec, StoredTuning
from altgrad_core.results.objects import (
    BROKEN_ZIP,
    damaged,
    read_environment,
    read_object,
    read_settings,
    validated,
)
from altgrad_core.results.records import History as History
from altgrad_core.results.records import StoredEvent as StoredEvent
from altgrad_core.results.run_directory import RunDirectory, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ID = re.compile(r"[0-9a-f]{12}")

Named = Callable[[Path], str]


class StoredRun(Protocol):
    """One run, wherever it is kept. What it recorded is read when asked for, once.

    What is not known is empty, a status that is not known pending. Raises ``UserError`` for what is
    damaged.
    """

    @property
    def spec(self) -> StoredSpec:
        """Its settings."""

    @property
    def location(self) -> str:
        """The path of its run directory, or an address that begins with ``https://`` or ``http://``."""

    @property
    def status(self) -> Status:
        """How it stands."""

    @property
    def history(self) -> History:
        """Its metrics and events."""

    @property
    def environment(self) -> dict[str, Any]:
        """Versions and hardware, as in ``environment.json``."""

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about data and quantisation, as in ``facts.json``."""

    @property
    def resampled(self) -> dict[str, NDArray[Any]]:
        """Metric -> its value in each draw of the examples, where that is kept instead of predictions."""

    def predictions(self, split: str) -> dict[str, NDArray[Any]]:
        """What it predicted for each example of a split: arrays by name."""


@dataclass(frozen=True)
class DirectoryRun:
    """A run that is kept in a run directory; ``location`` is its path, or where it was copied from."""

    directory: RunDirectory
    spec: StoredSpec
    location: str

    @cached_property
    def status(self) -> Status:
        """Contents of ``status.json``."""
        return self.directory.read_status()

    @cached_property
    def history(self) -> History:
        """Everything in ``metrics.jsonl``."""
        history = History()
        for record in self.directory.records():
            history.add(record)
        return history

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Contents of ``environment.json``."""
        return read_environment(self.directory.environment)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Contents of ``facts.json``."""
        return read_object(self.directory.facts)

    @cached_property
    def resampled(self) -> dict[str, NDArray[Any]]:
        """The arrays of ``resampled.npz``."""
        return _arrays(self.directory.resampled)

    def predictions(self, split: str) -> dict[str, NDArray[Any]]:
        """The arrays of one split in ``predictions.npz``."""
        return _arrays(self.directory.predictions, f"{split}_")


def _arrays(path: Path, head: str = "") -> dict[str, NDArray[Any]]:
    """The arrays of a file whose names begin with ``head``, by the rest of the name."""
    import numpy as np  # commands that read no arrays start faster without it

    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {n.removeprefix(head): arrays[n] for n in arrays.files if n.startswith(head)}
    except BROKEN_ZIP as error:
        raise damaged(path, str(error)) from error


@dataclass(frozen=True)
class StoredSuite:
    """The runs of one suite, with the plan they come from if it was kept.

    path:
        its folder; of a suite that was read from elsewhere, where its report goes by default.
    notes:
        what a reader must know about how the runs were brought together, a sentence each.
    source:
        what a user wrote to read it, where that is not the path.
    copy:
        the folder that its files were unpacked to, where that is not the path.
    damaged:
        id -> what is wrong with its record, of runs that were left out for that.
    """

    path: Path
    plan: StoredPlan | None
    runs: tuple[StoredRun, ...]
    tuning: StoredTuning | None = None
    notes: tuple[str, ...] = ()
    source: str = ""
    copy: Path | None = None
    damaged: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> Path:
        """The folder that holds the files."""
        return self.copy or self.path

    @property
    def declared(self) -> tuple[Metric, ...]:
        """What the suite's tasks measure, by the plan, else by the runs; empty in older results."""
        if self.plan is not None and self.plan.metrics:
            return self.plan.metrics
        found = {run.spec.task.name: run.spec.metrics for run in self.runs if run.spec.metrics}
        return shared(found) if found else ()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """As :attr:`declared`.

        Raises ``UserError`` where nothing is: those results are of a version whose tasks did not
        declare their metrics, and which way is better is not guessed.
        """
        if self.declared:
            return self.declared
        raise UserError(
            f"{self.path} does not say what its task measures, and which way is better: it was "
            "written by an older version of altgrad-bench. Run the suite again with this one: what "
            "has a result is not trained again unless a version that enters its id has changed."
        )

    @property
    def name(self) -> str:
        """The suite's name: from the plan, else from a run, else the folder's."""
        if self.plan is not None:
            return self.plan.suite
        return self.runs[0].spec.suite if self.runs else self.path.name


def read_suites(path: Path, shown: Named = str) -> tuple[StoredSuite, ...]:
    """The suites at ``path``: a run directory, a suite's folder of them, or a folder of suites.

    ``shown`` names the place of a run directory that was copied from elsewhere.
    A run of a suite whose files are damaged, or of another version, is left out with a note. Raises
    ``UserError`` if there is none of these, or nothing of it can be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(
            f"There is no folder {path}. Results are in the folder given with --runs "
            "(runs/<suite> unless set otherwise); name that one, or run the suite first."
        )
    if (path / "spec.yaml").exists():
        return (StoredSuite(path, None, (_read_run(path, shown),)),)
    if _is_suite(path):
        return (_read_suite(path, shown),)
    folders = (folder for folder in sorted(path.iterdir()) if folder.is_dir())
    suites = tuple(_read_suite(folder, shown) for folder in folders if _is_suite(folder))
    if not suites:
        raise UserError(
            f"{path} holds no results: it is neither a run directory (with spec.yaml), nor a "
            "suite's folder of run directories (with plan.json), nor a folder of suites. Name one "
            "of these, for example runs/quickstart."
        )
    return suites


def _run_folders(path: Path) -> list[Path]:
    """The run directories in a suite's folder, which are named by id: one that was renamed is gone."""
    return [
        f for f in sorted(path.iterdir()) if _ID.fullmatch(f.name) and (f / "spec.yaml").exists()
    ]


def _is_suite(path: Path) -> bool:
    return (path / "plan.json").exists() or bool(_run_folders(path))


def read_plan(folder: Path) -> StoredPlan:
    """The ``plan.json`` in a suite's folder. Raises ``UserError`` if it cannot be read."""
    path = folder / "plan.json"
    return validated(StoredPlan, read_object(path), path)


def _read_suite(path: Path, shown: Named) -> StoredSuite:
    plan = read_plan(path) if (path / "plan.json").exists() else None
    file = path / "tuning.json"
    tuning = validated(StoredTuning, read_object(file), file) if file.exists() else None
    runs: list[DirectoryRun] = []
    faults: dict[str, str] = {}
    for folder in _run_folders(path):
        try:
            runs.append(_whole_run(folder, shown))
        except UserError as error:
            faults[folder.name] = str(error)
    if faults and not runs:
        raise UserError(next(iter(faults.values())))
    notes = (
        f"The run {name} is left out, its record is damaged: {fault}"
        for name, fault in faults.items()
    )
    return StoredSuite(path, plan, tuple(runs), tuning, tuple(notes), damaged=faults)


def _whole_run(path: Path, shown: Named) -> DirectoryRun:
    """The run in ``path``, of which everything is there. ``UserError`` says what is not."""
    run = _read_run(path, shown)
    if run.status.record is None:  # nothing but reading them vouches for its metrics
        run.directory.check_files(run.status)
        _ = (run.environment, run.facts, run.history)
    elif fault := run.directory.damage():
        raise UserError(fault)
    return run


def _read_run(path: Path, shown: Named) -> DirectoryRun:
    directory = RunDirectory(path)
    raw = read_settings(directory.spec)
    if raw.get("layout") != LAYOUT:
        raise UserError(
            f"{path} was written by another version of altgrad-bench: its layout is "
            f"{raw.get('layout')!r}, this version reads layout {LAYOUT}. Read it with the version "
            "that wrote it (named in its environment.json), or run the suite into a new folder "
            "with --runs."
        )
    return DirectoryRun(directory, validated(StoredSpec, raw, directory.spec), shown(path))
