"""Files in the cache folder: a key for each content, one writer at a time, whole files only.

Beside each lies its SHA-256, as ``<name>.sha256``: a file that was cut, or in which a single bit was changed, is
made again instead of being used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.digest import file_digest

_UNLOCKABLE = frozenset((errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL))
"""What file systems without locks answer."""
_LEFT_SECONDS = 86400.0
"""What has not been written to for so long belongs to no writer that lives, where no lock can tell."""


def cache_key(parts: Mapping[str, Any]) -> str:
    """Name of what ``parts`` (JSON values) determine: 20 hex digits of a SHA-256."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` when the block ends well.

    Its digest is written then, for :func:`is_whole`. Raises :class:`UserError` if the file cannot be
    written (no space, no permission).
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        digest = file_digest(temporary).hex()
        temporary.replace(path)
        # Cut off here, the file has no digest, or that of another: it is made again.
        digest_file(path).write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"the cache file {path} cannot be written: {error.strerror or error}. Free some space "
            "there, or name another cache folder in the environment variable ALTGRAD_CACHE."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def digest_file(path: Path) -> Path:
    """Where the digest of a cache file is kept, as ``sha256sum --check`` reads it."""
    return path.with_name(f"{path.name}.sha256")


def is_whole(path: Path, log: Callable[[str], None]) -> bool:
    """Whether the file is there as it was written. One that is not is told to ``log``."""
    if not path.is_file():
        return False
    try:
        kept = digest_file(path).read_text(encoding="utf-8").split()[:1]
        whole = kept == [file_digest(path).hex()]
    except (OSError, ValueError, UserError):
        whole = False
    if not whole:
        log(f"the cache file {path} is damaged (it is not as it was written); it is made again")
    return whole


@contextmanager
def only_writer(path: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of ``path``, waiting for another process that is writing it.

    What writers that were killed left of the file is removed. The lock goes with the process that holds it,
    so one that was killed blocks nobody. On a file system without locks nobody waits: files are whole
    or not there, so that two writers of one cost the time of one. Raises :class:`UserError` if the folder
    cannot be used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(path, log)
        since = math.inf if lock else time.time() - _LEFT_SECONDS
        for left in path.parent.glob(f".{path.name}.*"):
            with suppress(FileNotFoundError):  # another one's, who has just finished it
                if left.stat().st_mtime < since:
                    left.unlink()
    except OSError as error:
        raise UserError(
            f"the cache folder {path.parent} cannot be used: {error.strerror or error}. "
            "Name another one in the environment variable ALTGRAD_CACHE."
        ) from error
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _locked(path: Path, log: Callable[[str], None]) -> BaseFileLock | None:
    """The lock of ``path``, once it can be had; None where there are no locks. Raises ``OSError``."""
    lock = FileLock(f"{path}.lock")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log(f"waiting for another process that is preparing {path.name}")
            lock.acquire()
    except (NotImplementedError, OSError) as error:  # the former of older filelocks
        if isinstance(error, OSError) and error.errno not in _UNLOCKABLE:
            raise
        log(f"{path.parent} knows no locks: another process may prepare {path.name} as well")
        return None
    return lock
