"""One run on a store, as the process that makes it here, in a folder of its own, brings and sends it.

On the store a run's directory looks as it does here, so that ``aws s3 sync`` gives a folder of runs, but for the
checkpoint. That is one file with everything that a run needs to go on, ``checkpoint/NUMBER-…-SHA256.tar``, always
under a new name: one that was cut off is seen by its digest, and the one before it is removed after. ``status.json``,
which vouches for the other files of a result, is sent last. So what is half sent is never taken for a whole.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

from pydantic import ValidationError

from altgrad_core._files import atomic_file, temporary_prefix, write_text
from altgrad_core.locks.lock import RunHeld
from altgrad_core.results.remote.lease import StoreLock
from altgrad_core.results.remote.store import Info, Store, StoreFault
from altgrad_core.results.run_directory import FINISHED, RunDirectory, Status

_BUNDLE = re.compile(r"(?P<number>\d{8})-(?P<state>[0-9a-f]{16})-(?P<sha>[0-9a-f]{64})\.tar")
_HEAD_BYTES = 200  # its first line holds a digest of the rest
_STATE = "state.pt"
_CARRIED = ("environment.json", "facts.json", "metrics.jsonl", "status.json", "log.txt", _STATE)
"""What a bundle holds; the state goes last: with it everything is there."""
RECORD = ("spec.yaml", "environment.json", "facts.json", "predictions.npz", "metrics.jsonl")
"""What is sent before the status."""


class RunMirror:
    """A run's directory here, and its counterpart on the store. For the holder of the run's lock here.

    ``say`` takes a line for the run's log.
    """

    def __init__(self, store: Store, directory: RunDirectory, say: Callable[[str], None]) -> None:
        self.directory, self._store, self._say = directory, store, say
        self.key = f"{directory.path.parent.name}/{directory.path.name}"
        self.lock = StoreLock(store, self.key)
        self._sent: dict[str, object] = {}
        self._last = directory.path / ".sent"
        """Names the bundle that the checkpoint here was sent in, or came from."""

    def take(self) -> None:
        """Hold the run on the store. Raises ``RunHeld`` where another does, and ``StoreFault``."""
        if not self.lock.held and not self.lock.take():
            raise RunHeld(f"{self._store.url}/{self.key} is being run by another process.")

    def fetch(self) -> None:
        """Bring what is further on there than here: a result, or a checkpoint with its record.

        Raises ``StoreFault``, and ``OSError``.
        """
        listed = self._store.ls(self.key)
        if "status.json" in listed and self.directory.status().status not in FINISHED:
            found = self._store.read(f"{self.key}/status.json") or b""
            if status_of(found).status in FINISHED:
                path = self.directory.path
                bring_records(self._store, path.parent, {path.name: found})
                if self.directory.has_result():
                    return
        if not self.directory.spec.exists() and (spec := self._store.read(f"{self.key}/spec.yaml")):
            write_bytes(self.directory.spec, spec)
        own = self.directory.checkpoint.exists() and self._last.exists() and self._last.read_text()
        for name in reversed(self._bundles()):
            if name == own or self._unpack(name):  # the checkpoint here is that one, or a later one
                return

    def take_again(self) -> None:
        """As :meth:`take`, of a lock that was lost; ``RunHeld`` also where a result was sent since."""
        self.take()
        if status_of(self._store.read(f"{self.key}/status.json") or b"").status in FINISHED:
            self.lock.give_back()
            raise RunHeld(f"{self._store.url}/{self.key} has a result of another process.")

    def _bundles(self) -> list[str]:
        """The names of the bundles on the store, the newest last."""
        return sorted(filter(_BUNDLE.fullmatch, self._store.ls(f"{self.key}/checkpoint")))

    def _unpack(self, name: str) -> bool:
        """Take up a bundle; whether it was whole."""
        size = int(self._store.ls(f"{self.key}/checkpoint").get(name, {}).get("size") or 0)
        with self._scratch() as folder:
            tar = folder / "bundle.tar"
            if not self._store.bring(f"{self.key}/checkpoint/{name}", tar, size):
                return False
            with tar.open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() in name
            if not whole:
                self._say(f"the checkpoint {name} on the store is not whole, and is passed over")
                return False
            self.directory.checkpoint.parent.mkdir(exist_ok=True)
            with tarfile.open(tar) as bundle:
                # no links, and no files with holes, which take more room than they say
                parts = {one.name: one for one in bundle if one.type == tarfile.REGTYPE}
                for part in (part for part in _CARRIED if part in parts):
                    source = cast(IO[bytes], bundle.extractfile(parts[part]))
                    if part == self.directory.log.name:
                        _put_before(source.read(), self.directory.log)
                        continue
                    with atomic_file(self._of(part)) as file:
                        shutil.copyfileobj(source, file)
        write_text(self._last, name)
        self._say("went on from what another machine, or an earlier attempt, had sent")
        return True

    def _of(self, part: str) -> Path:
        return self.directory.checkpoint if part == _STATE else self.directory.path / part

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        prefix = temporary_prefix("bundle")
        with tempfile.TemporaryDirectory(prefix=prefix, dir=self.directory.path) as name:
            yield Path(name)

    def checkpoint_mark(self) -> object:
        """Changes with every checkpoint."""
        return _mark(self.directory.checkpoint)

    def send(self) -> None:
        """Send what has changed since this was last called. Raises ``StoreFault``, and ``OSError``.

        The status is what it was when the rest had not been looked at: it vouches for no more than is sent.
        """
        raw = self.directory.status_file.read_bytes()
        finished = status_of(raw).status in FINISHED
        if not finished:
            self._send_bundle()
        for name in RECORD:
            path = self.directory.path / name
            if (mark := _mark(path)) and self._sent.get(name) != mark:
                self._store.write(f"{self.key}/{name}", path.read_bytes())
                self._sent[name] = mark
        if finished:
            self._send_last()
        if self._sent.get("status.json") != raw:
            self._store.write(f"{self.key}/status.json", raw)
            self._sent["status.json"] = raw
        if finished:
            self._store.remove([f"{self.key}/checkpoint/{name}" for name in self._bundles()])
            self._last.unlink(missing_ok=True)

    def deliver(self) -> None:
        """Send a run that has ended, unless another's result is there, and see that it has arrived."""
        raw = self.directory.status_file.read_bytes()
        there = self._store.read(f"{self.key}/status.json") or b""
        if there != raw and status_of(there).status in FINISHED:
            return
        lacking = self._lacking()
        if there != raw or lacking:
            self._sent = {name: mark for name, mark in self._sent.items() if name not in lacking}
            self._sent.pop("status.json", None)
            self.send()
            if lacking := self._lacking():
                raise StoreFault(
                    f"{self._store.url}/{self.key} lacks what was sent: {', '.join(lacking)}."
                )

    def _lacking(self) -> list[str]:
        return lacking(self.directory, self._store.ls(self.key))

    def _send_last(self) -> None:
        """What nobody needs while the run goes on: the log, and the model where it was asked for."""
        if self.directory.model.exists():
            self._store.send(
                self.directory.model, f"{self.key}/checkpoint/{self.directory.model.name}"
            )
        if self.directory.log.exists():
            self._store.write(f"{self.key}/log.txt", self.directory.log.read_bytes())

    def _send_bundle(self) -> None:
        """Send the checkpoint, if that is not done, with the record that it belongs to."""
        mark = self.checkpoint_mark()
        if mark is None or self._sent.get(_STATE) == mark:
            return
        before = self._bundles()
        with self._scratch() as folder:
            tar = folder / "bundle.tar"
            state = self._pack(tar)
            if not before or state not in before[-1]:
                with tar.open("rb") as file:
                    sha = hashlib.file_digest(file, "sha256").hexdigest()
                number = int(before[-1].partition("-")[0]) + 1 if before else 1
                name = f"{number:08d}-{state}-{sha}.tar"
                self._store.send(tar, f"{self.key}/checkpoint/{name}")
                write_text(self._last, name)
                self._store.remove([f"{self.key}/checkpoint/{old}" for old in before])
        self._sent[_STATE] = mark

    def _pack(self, tar: Path) -> str:
        """Write a bundle, and return what names its state.

        The state is opened first: the record may be further on than it, and never behind.
        """
        with ExitStack() as files, tarfile.open(tar, "w") as bundle:
            state = ""
            for part in reversed(_CARRIED):
                if part != _STATE and not self._of(part).exists():
                    continue
                file = files.enter_context(self._of(part).open("rb"))
                if part == _STATE:
                    state = hashlib.sha256(file.readline(_HEAD_BYTES)).hexdigest()[:16]
                    file.seek(0)
                bundle.addfile(bundle.gettarinfo(arcname=part, fileobj=file), file)
        return state


def lacking(directory: RunDirectory, there: Mapping[str, Info], head: str = "") -> list[str]:
    """The files of a run's record that are not there, ``head`` before their names, as long as they are here."""
    files = {name: directory.path / name for name in (*RECORD, "status.json")}
    sizes = {name: file.stat().st_size for name, file in files.items() if file.exists()}
    return [name for name, size in sizes.items() if there.get(head + name, {}).get("size") != size]


def status_of(raw: bytes) -> Status:
    """What a ``status.json`` says; pending where it says nothing that can be read."""
    try:
        return Status.model_validate_json(raw)
    except ValidationError:
        return Status()


def bring_records(store: Store, folder: Path, statuses: Mapping[str, bytes]) -> None:
    """Bring the records of runs of the suite in ``folder`` that ended with these statuses, which are written last."""
    names = [f"{folder.name}/{run_id}/{name}" for run_id in statuses for name in RECORD]
    for name, content in store.read_many(names):
        path = folder.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
    for run_id, status in statuses.items():
        write_bytes(RunDirectory(folder / run_id).status_file, status)


def report_name(report: Path) -> str:
    """The name, in a suite's folder, of what a process reports that prepares data where it cannot be seen."""
    return f"report-{report.parent.name.rpartition('-')[2]}.jsonl"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic_file(path) as file:
        file.write(content)


def _put_before(text: bytes, log: Path) -> None:
    """Put what a log was elsewhere before what it is here, in place: this process writes to it."""
    here = log.read_bytes() if log.exists() else b""
    log.write_bytes(text + here)


def _mark(path: Path) -> object:
    """Changes with a file; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
