"""Files in the cache folder: a key for each content, one writer at a time, whole files only."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from altgrad_core.errors import UserError


def cache_key(parts: Mapping[str, Any]) -> str:
    """Name of what ``parts`` (JSON values) determine: 20 hex digits of a SHA-256."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` when the block ends well.

    Raises :class:`UserError` if the file cannot be written (no space, no permission).
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"the cache file {path} cannot be written: {error.strerror or error}. Free some space "
            "there, or name another cache folder in the environment variable ALTGRAD_CACHE."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def only_writer(path: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of ``path``, waiting for another process that is writing it.

    The lock goes with the process that holds it, so one that was killed blocks nobody. Raises
    :class:`UserError` if the folder cannot be used.
    """
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log(f"waiting for another process that is preparing {path.name}")
            lock.acquire()
    except OSError as error:
        raise UserError(
            f"the cache folder {path.parent} cannot be used: {error.strerror or error}. "
            "Name another one in the environment variable ALTGRAD_CACHE."
        ) from error
    try:
        yield
    finally:
        lock.release()
