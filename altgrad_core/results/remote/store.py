"""A folder on a store, by fsspec: every call gives an answer in time, or raises :class:`StoreFault`.

What is asked of a store: that a file which was written is read and listed at once (S3, Google Cloud Storage and Azure
promise it). No rename, no lock, no way to append, and no exclusive creation is asked for. Names that a store lists
are data: they are compared with what may be there, and never become paths by themselves.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from altgrad_core._text import plain
from altgrad_core.errors import UserError

_T = TypeVar("_T")
Info = Mapping[str, Any]

CALL_SECONDS = 30.0
"""How long the answer to a call on a small file is waited for."""
PAUSES = (0.5, 2.0)
"""How long is waited before a call that failed is tried again."""
_SLOWEST = 256 * 1024
"""Bytes a second below which a transfer counts as hanging."""
_MOST_HANGING = 4
_BATCH_FILES, _BATCH_BYTES = 64, 1 << 25
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


class StoreFault(UserError):
    """The store gives no answer, or refuses."""


def open_store(url: str) -> Store:
    """The store at a URL, which is not asked anything yet.

    Raises ``UserError`` for a protocol that nobody knows, or whose package is not installed.
    """
    from fsspec.core import url_to_fs
    from fsspec.registry import get_filesystem_class, known_implementations

    protocol = url.partition(":")[0]
    try:
        kind = get_filesystem_class(protocol)
        fs, root = url_to_fs(url)
    except ImportError as error:
        module = known_implementations.get(protocol, {}).get("class", "").partition(".")[0]
        remedy = f"pip install {module}" if module not in ("", "fsspec") else str(error)
        raise UserError(f"{protocol}:// needs a package that is not installed: {remedy}") from error
    except ValueError as error:
        raise UserError(
            f"{url}: {plain(str(error)).rstrip('.')}. fsspec knows s3, gs, abfs and others, each by a package."
        ) from error
    except Exception as error:  # such as one that wants to know more than the URL says
        raise UserError(f"{url} cannot be opened: {_told(error)}") from error
    return Store(url, fs, str(root), kind.__module__)


class Store:
    """The files below ``url``, by their names relative to it. Every method may raise :class:`StoreFault`.

    ``module`` is what speaks to the store.
    """

    def __init__(self, url: str, fs: Any, root: str, module: str = "") -> None:
        self.url, self.module = url, module
        self._fs, self._head = fs, f"{root.rstrip('/')}/"
        self._hanging: list[threading.Thread] = []

    @property
    def hangs(self) -> bool:
        """Whether a call has not come back, so that this process may not end by itself."""
        return any(thread.is_alive() for thread in self._hanging)

    def ls(self, folder: str) -> dict[str, Info]:
        """The files in a folder: name in it -> what the store says of it. Empty where there is none."""
        found = self._call(CALL_SECONDS, self._listed, self._head + folder)
        names = {str(one["name"]).rpartition("/")[2]: one for one in found}
        return {name: one for name, one in names.items() if one["type"] == "file"}

    def find(self, folder: str = "") -> dict[str, Info]:
        """The files below a folder, however deep: name relative to it -> what the store says of it."""
        head = f"{self._head}{folder}/" if folder else self._head
        if self._finds:
            found = self._call(20 * CALL_SECONDS, self._found, head.rstrip("/"))
        else:
            found = dict(self._walked(head.rstrip("/")))
        return {name[len(head) :]: one for name, one in found.items() if name.startswith(head)}

    def read(self, name: str) -> bytes | None:
        """The contents of a file; None where there is none."""
        return dict(self.read_many([name])).get(name)

    def read_many(
        self, names: Iterable[str], sizes: Mapping[str, int] = {}
    ) -> Iterator[tuple[str, bytes]]:
        """Name and contents of those files that are there, a few at a time, in order."""
        for batch, size in _batches(names, sizes):
            paths = [self._head + name for name in batch]
            got = self._call(_time(size), self._fs.cat, paths, on_error="return")
            for name, path in zip(batch, paths, strict=True):
                content = got[path]
                if not isinstance(content, bytes | FileNotFoundError):  # once more, by itself
                    content = self._content(path, sizes.get(name, 0))
                if isinstance(content, bytes):
                    yield name, content

    def _content(self, path: str, size: int) -> bytes | FileNotFoundError:
        try:
            content: bytes = self._call(_time(size), self._fs.cat_file, path)
        except FileNotFoundError as error:
            return error
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file."""
        self._put(_time(len(content)), self._fs.pipe_file, name, content)

    def write_many(self, files: Mapping[str, bytes]) -> None:
        """Write files, in no order."""
        for batch, size in _batches(files, {name: len(body) for name, body in files.items()}):
            bodies = {self._head + name: files[name] for name in batch}
            try:
                self._call(_time(size), self._fs.pipe, bodies)
            except (FileNotFoundError, StoreFault):  # by themselves, and into folders
                for name in batch:
                    self.write(name, files[name])

    def send(self, file: Path, name: str) -> None:
        """Write a file that lies here and does not change."""
        self._put(
            _time(file.stat().st_size),
            lambda path, source: self._fs.put_file(source, path),
            name,
            str(file),
        )

    def bring(self, name: str, file: Path, size: int) -> bool:
        """Copy a file to here; whether it was there."""
        try:
            self._call(_time(size), self._fs.get_file, self._head + name, str(file))
        except FileNotFoundError:
            return False
        return True

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; who was quicker has removed them as well."""
        for name in names:
            try:
                self._call(CALL_SECONDS, self._removed, self._head + name)
            except FileNotFoundError:
                continue

    def _removed(self, path: str) -> None:
        try:
            self._fs.rm_file(path)
        except NotImplementedError:  # of some stores this one is not written
            self._fs.rm(path)

    def _put(self, seconds: float, put: Callable[..., object], name: str, content: object) -> None:
        path = self._head + name
        try:
            self._call(seconds, put, path, content)
        except FileNotFoundError:  # a store that has folders
            parent = path.rpartition("/")[0]
            self._call(CALL_SECONDS, self._fs.makedirs, parent, exist_ok=True)
            self._call(seconds, put, path, content)

    def _listed(self, path: str) -> list[Info]:
        self._fs.invalidate_cache()
        try:
            found: list[Info] = self._fs.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return found

    @property
    def _finds(self) -> bool:
        """Whether the store looks below folders itself: fsspec's walk takes one that it cannot list for empty."""
        from fsspec.asyn import AsyncFileSystem
        from fsspec.spec import AbstractFileSystem

        kind: Any = type(self._fs)
        if isinstance(self._fs, AsyncFileSystem):
            return bool(kind._find is not AsyncFileSystem._find)
        return bool(kind.find is not AbstractFileSystem.find)

    def _found(self, path: str) -> dict[str, Info]:
        self._fs.invalidate_cache()
        found: dict[str, Info] = self._fs.find(path, detail=True)
        return found

    def _walked(self, path: str) -> Iterator[tuple[str, Info]]:
        for one in self._call(CALL_SECONDS, self._listed, path):
            name = str(one["name"]).rstrip("/")
            if one["type"] == "file":
                yield name, one
            elif name != path:
                yield from self._walked(name)

    def _call(self, seconds: float, work: Callable[..., _T], *args: Any, **more: Any) -> _T:
        """The answer to a call, which is tried again if it fails, and given up if it hangs.

        ``FileNotFoundError`` is an answer.
        """
        for pause in (*PAUSES, None):
            well, value = self._answer(seconds, lambda: work(*args, **more))
            if well:
                found: _T = value
                return found
            if isinstance(value, FileNotFoundError):
                raise value
            if pause is not None:
                time.sleep(pause)
        raise self._fault(value)

    def _answer(self, seconds: float, work: Callable[[], _T]) -> tuple[bool, Any]:
        """Whether the call went well, and what it gave or raised."""
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= _MOST_HANGING:
            raise StoreFault(f"{self.url} does not answer: {_MOST_HANGING} calls hang.")
        box: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

        def answer() -> None:
            try:
                box.put((True, work()))
            except BaseException as error:
                box.put((False, error))

        thread = threading.Thread(target=answer, name="store", daemon=True)
        thread.start()
        try:
            return box.get(timeout=seconds)
        except queue.Empty:
            self._hanging.append(thread)
            raise StoreFault(f"{self.url} gave no answer for {seconds:g} s.") from None

    def _fault(self, error: BaseException) -> StoreFault:
        return StoreFault(f"{self.url} refuses, or cannot be reached: {_told(error)}")


def _told(error: BaseException) -> str:
    """What an error says in its first line, without what may follow a URL: such tails can hold signatures."""
    first = next((line for line in str(error).splitlines() if line.strip()), "it says no more")
    said = re.sub(r"\?\S+", "?…", first)
    return plain(f"{type(error).__name__}: {said}", 300)


def _time(size: int) -> float:
    return CALL_SECONDS + size / _SLOWEST


def _batches(names: Iterable[str], sizes: Mapping[str, int]) -> Iterator[tuple[list[str], int]]:
    """A few names at a time, with the bytes that they have together."""
    batch: list[str] = []
    size = 0
    for name in names:
        batch.append(name)
        size += sizes.get(name, 0)
        if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch, size
            batch, size = [], 0
    if batch:
        yield batch, size


def modified(info: Info) -> float | None:
    """When a file was last written, by the store's clock; None where the store does not say."""
    for value in (info[name] for name in _TIMES if info.get(name)):
        if isinstance(value, int | float):
            return float(value)
        try:
            when = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        except ValueError:
            continue
        return when.timestamp()
    return None
