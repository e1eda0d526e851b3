"""Results in one portable file: ``altgrad-bench pack RUNS -o FILE``, read wherever a folder is.

The archive is a zip file with the record of every run, and nothing that a reader does not need:

=============================  ===================================================================
``<suite>/plan.json``          what the suite set out to do; ``tuning.json`` beside it, if any
``<suite>/<id>/…``             ``spec.yaml``, ``environment.json``, ``status.json``, ``facts.json``,
                               ``metrics.jsonl``, ``predictions.npz``; no checkpoint, no log
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
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from altgrad_core._files import atomic_file, sweep
from altgrad_core.errors import UserError
from altgrad_core.results.objects import BROKEN_ZIP
from altgrad_core.results.stored import DirectoryRun, StoredSuite, read_suites

SUFFIX = ".zip"
_OF_SUITE = ("plan.json", "tuning.json")
_OF_RUN = (
    *("spec.yaml", "environment.json", "status.json", "facts.json"),
    *("metrics.jsonl", "predictions.npz"),
)
_SUITE = r"(?!\.)[^/\\:\x00-\x1f]{1,200}"
_MEMBER = re.compile(
    rf"{_SUITE}/(?:{'|'.join(map(re.escape, _OF_SUITE))}"
    rf"|[0-9a-f]{{12}}/(?:{'|'.join(map(re.escape, _OF_RUN))}))"
)
_LARGEST_FILE = 1 << 30
_LARGEST_ARCHIVE = 1 << 34
_MOST_FILES = 600_000
_CHUNK = 1 << 20
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time of every member, since the same results are to give the same bytes."""


def is_archive(path: Path) -> bool:
    """Whether ``path`` is a file that ends like an archive."""
    return path.suffix == SUFFIX and path.is_file()


def pack(suites: tuple[StoredSuite, ...], target: Path) -> int:
    """Write the suites, as read from folders, to the archive ``target``; returns the number of runs.

    Raises:
        UserError: For another suffix than ``.zip``, two suites of one name, suites that are not on
            the disk (of W&B), or a disk that refuses the file.
    """
    if target.suffix != SUFFIX:
        raise UserError(f"An archive's name ends with {SUFFIX}: write to {target}{SUFFIX}.")
    names = [suite.name for suite in suites]
    if len(set(names)) < len(names):
        raise UserError("Two of the sources hold a suite of one name: pack each by itself.")
    members = sorted(member for suite in suites for member in _members(suite))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        with atomic_file(target) as raw, zipfile.ZipFile(raw, "w") as archive:
            for name, file in members:
                info = zipfile.ZipInfo(name, _LONG_AGO)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                with file.open("rb") as source, archive.open(info, "w") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
    except OSError as error:
        raise UserError(f"The archive {target} cannot be written: {error.strerror}.") from error
    return sum(name.endswith("/spec.yaml") for name, _ in members)


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
    return tuple(suite.shown_as(path) for suite in read_suites(folder))


def _members(suite: StoredSuite) -> Iterator[tuple[str, Path]]:
    """Name in the archive -> file, of what there is."""
    found = [(f"{suite.name}/{name}", suite.files / name) for name in _OF_SUITE]
    for run in suite.runs:
        if not isinstance(run, DirectoryRun):
            raise UserError(f"{suite.source} is not on this disk, so it cannot be packed.")
        folder = run.directory.path
        found += [(f"{suite.name}/{run.spec.id}/{name}", folder / name) for name in _OF_RUN]
    return ((name, file) for name, file in found if file.is_file())


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
                if size > min(left, _LARGEST_FILE):
                    raise ValueError(f"{info.filename[:100]!r} is too large")
                sink.write(chunk)
        left -= size
