"""Running a finished cell again, in a folder of its own, and comparing what it leaves with what is on record.

Free of torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from altgrad_core._files import default_cache
from altgrad_core.errors import UserError
from altgrad_core.execution.cells import open_directory, run_specs
from altgrad_core.execution.options import Observer, RunOptions
from altgrad_core.planning.spec import RunSpec
from altgrad_core.planning.spec_file import load_spec
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.attempts import changes, made_on, parts_of_batches
from altgrad_core.results.differences import MISSING, differing
from altgrad_core.results.objects import BROKEN_ZIP, damaged, read_environment
from altgrad_core.results.run_directory import FINISHED, Record, RunDirectory

TIMES = "throughput/"
"""Family of the metrics that measure time, which no run repeats."""


@dataclass(frozen=True)
class Difference:
    """The first thing that is not the same: where it is, and both values as text."""

    where: str
    recorded: str
    again: str


@dataclass(frozen=True)
class Verdict:
    """Whether a run gave the same again.

    first:
        the first difference; None where there is none.
    count:
        how many lines of the record, and arrays of predictions, differ.
    explained_by:
        what of the surroundings is not as recorded; name -> what it was, and what it is.
    notes:
        what else a reader should know, as that the run itself was made on two machines.
    failed:
        why there is nothing to compare with; empty where there is.
    """

    id: str
    label: str
    first: Difference | None = None
    count: int = 0
    explained_by: dict[str, tuple[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failed: str = ""

    @property
    def identical(self) -> bool:
        """Whether every number that does not measure time is the same to its last bit."""
        return self.first is None and not self.failed

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "identical": self.identical}


def verify_runs(
    directories: list[RunDirectory], options: RunOptions, observer: Observer
) -> list[Verdict]:
    """Run each again with its own settings, threads and device, and compare.

    ``options.device`` of ``auto`` is each run's own. Trackers are left out. Raises ``UserError`` if a run
    has no whole result, or cannot be run.
    """
    specs = [_finished(directory) for directory in directories]
    verdicts = []
    executor = catalog().build("executor", options.executor, options.executor_settings)
    with closing(executor), tempfile.TemporaryDirectory(prefix="altgrad-verify-") as scratch:
        observer.begin(len(specs), 0)
        for spec, directory in zip(specs, directories, strict=True):
            again = RunDirectory(Path(scratch) / spec.id)
            found = read_environment(directory.environment)
            own = _as_it_was(options, found)
            failed = ""
            try:
                open_directory(again, spec, observer.message)
                ended = run_specs([spec], {spec.id: again}, executor, own, observer)
                status = ended.statuses.get(spec.id) or again.status()
                failed = "" if status.status in FINISHED else f"{status.status}: {status.message}"
            except UserError as error:
                failed = str(error)
            verdicts.append(_verdict(spec, directory, again, failed))
    return verdicts


def _finished(directory: RunDirectory) -> RunSpec:
    """The spec of a run that has a whole result, without its trackers."""
    if fault := directory.damage():
        raise UserError(f"There is no whole record to compare with: {fault}")
    status = directory.status()
    if status.status not in FINISHED:
        raise UserError(
            f"{directory.path} has no result to verify: it is {status.status}. Run its suite first."
        )
    return load_spec(directory.spec).model_copy(update={"trackers": ()})


def _as_it_was(options: RunOptions, environment: Mapping[str, Any]) -> RunOptions:
    """The options with the recorded device and threads, where none are given, and parts of batches."""
    device = environment.get("device") if options.device == "auto" else options.device
    threads = options.threads or environment.get("threads")
    parts = parts_of_batches(environment)
    return replace(options, device=device or "auto", threads=threads, micro_batches=parts)


def _verdict(spec: RunSpec, old: RunDirectory, new: RunDirectory, failed: str) -> Verdict:
    before = read_environment(old.environment)
    now = read_environment(new.environment)
    apart = differing(made_on(before), made_on(now)) if now else {}
    notes = [f"the recorded run was itself made on changing ground: {c}" for c in changes(before)]
    left_out = new.predictions.exists() and not old.predictions.exists()
    if left_out:  # by an archive: of a run that lost them, the status would tell
        notes.append("no predictions are on record, so that only metrics.jsonl was compared")
    predictions = () if left_out else _predictions(old, new)
    differences = [] if failed else [*_records(old, new), *predictions]
    return Verdict(
        spec.id,
        f"{spec.condition} seed {spec.seed}",
        differences[0] if differences else None,
        len(differences),
        apart,
        tuple(notes),
        failed,
    )


def _records(old: RunDirectory, new: RunDirectory) -> Iterator[Difference]:
    """The lines of ``metrics.jsonl`` that differ, less the metrics that measure time."""
    for number, (one, other) in enumerate(zip_longest(_lines(old), _lines(new)), 1):
        if one is None or other is None or one.to_json() != other.to_json():  # NaN is NaN there
            yield _line(number, one, other)


def _lines(directory: RunDirectory) -> Iterator[Record]:
    for record in directory.records():
        kept = {k: v for k, v in record.metrics.items() if not k.startswith(TIMES)}
        if kept or not record.metrics:
            yield record.model_copy(update={"metrics": kept})


def _line(number: int, one: Record | None, other: Record | None) -> Difference:
    where = f"metrics.jsonl, record {number}"
    if one is None or other is None:
        there = one or other
        assert there is not None
        where += f" (step {there.step}, {there.kind})"
        return Difference(where, *(MISSING if r is None else "there" for r in (one, other)))
    where += f" (step {one.step}, {one.kind})"
    if (one.step, one.kind) != (other.step, other.kind):
        return Difference(where, *(f"step {r.step}, {r.kind}" for r in (one, other)))
    values = ({k: repr(v) for k, v in r.metrics.items()} | (r.event or {}) for r in (one, other))
    name, pair = next(iter(differing(*values).items()))
    return Difference(f"{where}, {name}", *pair)


def _predictions(old: RunDirectory, new: RunDirectory) -> Iterator[Difference]:
    """The arrays of ``predictions.npz`` that differ, each with its first place that does."""
    one, other = _arrays(old), _arrays(new)
    for name in dict.fromkeys((*one, *other)):
        a, b = one.get(name), other.get(name)
        where = f"predictions.npz, {name}"
        if a is None or b is None:
            yield Difference(where, *(MISSING if x is None else "there" for x in (a, b)))
        elif (a.shape, a.dtype) != (b.shape, b.dtype):
            yield Difference(where, *(f"{x.dtype} of shape {x.shape}" for x in (a, b)))
        elif a.tobytes() != b.tobytes():
            yield _first_of(where, a, b)


def _first_of(where: str, a: Any, b: Any) -> Difference:
    import numpy as np

    flat = [np.ascontiguousarray(x).reshape(-1) for x in (a, b)]
    width = flat[0].dtype.itemsize
    parts = [x.view(np.uint8).reshape(-1, width) for x in flat]
    first = int(np.flatnonzero((parts[0] != parts[1]).any(axis=1))[0])
    index = tuple(int(i) for i in np.unravel_index(first, a.shape))
    return Difference(f"{where}{list(index)}", *(repr(x[first].item()) for x in flat))


def _arrays(directory: RunDirectory) -> dict[str, Any]:
    import numpy as np

    if not directory.predictions.exists():
        return {}
    try:
        with np.load(directory.predictions, allow_pickle=False) as arrays:
            return dict(arrays)
    except BROKEN_ZIP as error:
        raise damaged(directory.predictions, str(error)) from error


def verify_options(device: str, threads: int | None, timeout: float | None) -> RunOptions:
    """Options for :func:`verify_runs`."""
    return RunOptions(
        device=device, threads=threads, timeout=timeout, workers=1, cache=default_cache()
    )
