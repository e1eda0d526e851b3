"""Results in one portable file: ``altgrad-bench pack RUNS -o FILE``, read wherever a folder is.

The archive is a zip file with the record of every run, and nothing that a reader does not need:

=============================  ===================================================================
``<suite>/plan.json``          what the suite set out to do, without the folder that its command named;
                               ``tuning.json`` beside it, if any
``<suite>/<id>/…``             ``spec.yaml``, ``environment.json``, ``status.json``, ``facts.json``,
                               ``metrics.jsonl``, ``predictions.npz`` or, small enough for a
                               repository, ``resampled.npz``; no checkpoint, no log
=============================  ===================================================================

Packing the same results gives the same bytes. An archive from elsewhere is data: only files of these
names are taken out of it, of bounded size and number, to a temporary folder that ends with the process.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from altgrad_core._files import atomic_file, sweep, write_json
from altgrad_core.errors import UserError
from altgrad_core.results.objects import BROKEN_ZIP, read_object
from altgrad_core.results.run_directory import RunDirectory
from altgrad_core.results.stored import DirectoryRun, StoredRun, StoredSuite, read_suites

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIX = ".zip"
_PREDICTIONS = "predictions.npz"
OF_SUITE = ("plan.json", "tuning.json")
OF_RUN = (
    *("spec.yaml", "environment.json", "status.json", "facts.json"),
    *("metrics.jsonl", _PREDICTIONS, "resampled.npz"),
)
SUITE = r"(?!\.)[^/\\:\x00-\x1f]{1,200}"
_MEMBER = re.compile(
    rf"{SUITE}/(?:{'|'.join(map(re.escape, OF_SUITE))}"
    rf"|[0-9a-f]{{12}}/(?:{'|'.join(map(re.escape, OF_RUN))}))"
)
_WORD = r"""(?:'[^']*'|"[^"]*"|[^\s'"])+"""  # of a command line, as a shell reads it
_PLACE = re.compile(rf" (?:--runs {_WORD}|(?='?--runs=){_WORD})")
"""The option that names the folder of runs."""
LARGEST_FILE = 1 << 30
_LARGEST_ARCHIVE = 1 << 34
_MOST_FILES = 600_000
_CHUNK = 1 << 20
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time of every member, since the same results are to give the same bytes."""


def is_archive(path: Path) -> bool:
    """Whether ``path`` is a file that ends like an archive."""
    return path.suffix == SUFFIX and path.is_file()


Draws = Callable[[StoredRun], "dict[str, NDArray[Any]]"]


def pack(
    suites: tuple[StoredSuite, ...],
    target: Path,
    draws_of: Callable[[StoredSuite], Draws] | None = None,
) -> int:
    """Write the suites, as read from folders, to the archive ``target``; returns the number of runs.

    With ``draws_of`` no predictions are written, and of each run the arrays that it gives are.

    Raises:
        UserError: For another suffix than ``.zip``, two suites of one name, suites that are not on
            the disk (of W&B), or a disk that refuses the file.
    """
    if target.suffix != SUFFIX:
        raise UserError(f"An archive's name ends with {SUFFIX}: write to {target}{SUFFIX}.")
    names = [suite.name for suite in suites]
    if len(set(names)) < len(names):
        raise UserError("Two of the sources hold a suite of one name: pack each by itself.")
    made = tempfile.TemporaryDirectory(prefix="altgrad-archive-")
    members = {name: file for suite in suites for name, file in _members(suite)}
    if draws_of is not None:
        members = {name: file for name, file in members.items() if file.name != _PREDICTIONS}
    for number, suite in enumerate(suites):
        folder = Path(made.name, str(number))
        folder.mkdir()
        members |= _without_place(suite, folder)
        if draws_of is not None:
            members |= _without_predictions(suite, draws_of(suite), folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        with atomic_file(target) as raw, zipfile.ZipFile(raw, "w") as archive:
            for name, file in sorted(members.items()):
                info = zipfile.ZipInfo(name, _LONG_AGO)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                with file.open("rb") as source, archive.open(info, "w") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
    except OSError as error:
        raise UserError(f"The archive {target} cannot be written: {error.strerror}.") from error
    finally:
        made.cleanup()
    return sum(name.endswith("/spec.yaml") for name in members)


def read_archive(path: Path) -> tuple[StoredSuite, ...]:
    """The suites in the archive at ``path``.

    Raises:
        UserError: For a file that is no archive of ours, is damaged, or exceeds the bounds.
    """
    folder = Path(tempfile.mkdtemp(prefix="altgrad-archive-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) as archive:
            _extract(archive, folder, path)
    except ValueError as error:
        raise UserError(f"{path} is no archive of results: {error}.") from error
    except BROKEN_ZIP as error:
        raise UserError(f"{path} is no whole archive of results: {error}.") from error
    suites = read_suites(folder, lambda place: f"{path}/{place.relative_to(folder)}")
    beside = path.with_suffix("")
    return tuple(
        replace(suite, path=beside / suite.name, source=str(path), copy=suite.path)
        for suite in suites
    )


def _members(suite: StoredSuite) -> Iterator[tuple[str, Path]]:
    """Name in the archive -> file, of what there is."""
    found = [(f"{suite.name}/{name}", suite.files / name) for name in OF_SUITE]
    for run in suite.runs:
        if not isinstance(run, DirectoryRun):
            raise UserError(f"{suite.source} is not on this disk, so it cannot be packed.")
        folder = run.directory.path
        found += [(f"{suite.name}/{run.spec.id}/{name}", folder / name) for name in OF_RUN]
    return ((name, file) for name, file in found if file.is_file())


def _without_place(suite: StoredSuite, folder: Path) -> dict[str, Path]:
    """Name in the archive -> a plan below ``folder`` whose command does not say where the runs lay.

    That is a path of one machine, which means nothing elsewhere and may say more than its owner wants.
    """
    data = read_object(suite.files / "plan.json")
    command = str(data.get("command", ""))
    told = _PLACE.sub("", command)
    if told == command:
        return {}
    write_json(folder / "plan.json", {**data, "command": told})
    return {f"{suite.name}/plan.json": folder / "plan.json"}


def _without_predictions(suite: StoredSuite, draws: Draws, folder: Path) -> dict[str, Path]:
    """Name in the archive -> a file below ``folder``: what replaces the files of a run, and joins them.

    A status vouches for the files of its run, so this one no longer does for the predictions.
    """
    import numpy as np

    found: dict[str, Path] = {}
    for run in suite.runs:
        made = RunDirectory(folder / run.spec.id)
        made.path.mkdir(parents=True)
        files = {name: kept for name, kept in run.status.files.items() if name != _PREDICTIONS}
        made.write_status(run.status.model_copy(update={"files": files}))
        if arrays := draws(run):
            np.savez(made.resampled, allow_pickle=False, **arrays)
        found |= {f"{suite.name}/{run.spec.id}/{one.name}": one for one in made.path.iterdir()}
    return found


def _extract(archive: zipfile.ZipFile, folder: Path, path: Path) -> None:
    """Write the members below ``folder``. ``ValueError`` says which rule one breaks."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(names) > _MOST_FILES:
        raise ValueError(f"it holds {len(names):,} files, more than {_MOST_FILES:,}")
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("it holds two files of one name")
    left = _LARGEST_ARCHIVE
    for info in infos:
        if not _MEMBER.fullmatch(info.filename) or ".." in PurePosixPath(info.filename).parts:
            raise ValueError(f"it holds {info.filename[:100]!r}, which is no file of a run")
        target = folder / info.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, target.open("wb") as sink:
            size = 0
            # What is written is counted: the sizes in the archive's directory may lie.
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                if size > min(left, LARGEST_FILE):
                    raise ValueError(f"{info.filename[:100]!r} is too large")
                sink.write(chunk)
        left -= size
