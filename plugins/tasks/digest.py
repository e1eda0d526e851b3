"""Hashes of files. Free of torch, since planning computes fingerprints."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from altgrad_core.errors import UserError


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file; remembered within the process while the file is the same and untouched.

    Copying can keep size and time of modification, but not the inode's time of change.
    """
    status = path.stat()
    untouched = (status.st_dev, status.st_ino, status.st_ctime_ns, status.st_mtime_ns)
    return _digest(path.resolve(), (*untouched, status.st_size))


@lru_cache(maxsize=64)
def _digest(path: Path, untouched: tuple[int, ...]) -> bytes:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise UserError(f"file {path} cannot be read: {error.strerror or error}.") from error
