"""Checkpoints: one atomic file, read back as data only, and only as it was written.

A file is the line ``altgrad checkpoint sha256:<64 hex digits>`` and then what ``torch.save`` wrote, which is
what the digest is of: torch itself checks no sums, and takes changed weights for weights.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Any

import torch

from altgrad_core._files import atomic_file

_HEAD = b"altgrad checkpoint sha256:%b\n"
_LENGTH = len(_HEAD % bytes(64))


class CheckpointDamaged(Exception):
    """What lies there is no whole checkpoint, or none that this version of torch reads."""


class _Hashing:
    """A file to write to that sums up what it is given."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dicts of those) to ``path``."""
    path.parent.mkdir(exist_ok=True)  # not its parents: a run directory that was deleted stays so
    with atomic_file(path) as file:
        file.write(bytes(_LENGTH))
        hashing = _Hashing(file)
        torch.save(state, hashing)  # type: ignore[arg-type]  # torch asks for no more than this
        file.seek(0)
        file.write(_head(hashing.digest.hexdigest()))


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The checkpoint, on the CPU, or None where there is none. Never unpickles code.

    Raises ``CheckpointDamaged`` for anything else that lies there, and ``MemoryError`` and ``OSError``.
    """
    if not path.exists():
        return None
    with path.open("rb") as file:
        head = file.read(_LENGTH)
        if head != _head(hashlib.file_digest(file, "sha256").hexdigest()):
            raise CheckpointDamaged(f"{path} is not as it was written")
        file.seek(_LENGTH)
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except (MemoryError, OSError):
            raise
        except Exception as error:  # whole, but of a torch with another idea of it
            said = str(error).partition("\n")[0]
            raise CheckpointDamaged(f"{path} cannot be read by this torch ({said})") from error
    return state


def _head(digest: str) -> bytes:
    return _HEAD % digest.encode()
