"""Hashes of files. Free of torch, since planning computes fingerprints."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from altgrad_core.errors import UserError


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file; remembered within the process while its size and time stay as they are."""
    status = path.stat()
    return _digest(path.resolve(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _digest(path: Path, mtime_ns: int, size: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise UserError(f"file {path} cannot be read: {error.strerror or error}.") from error
