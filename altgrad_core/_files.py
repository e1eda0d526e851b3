"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any


def default_cache() -> Path:
    """``$ALTGRAD_CACHE``, or ``altgrad-bench`` in the user's cache folder."""
    if folder := os.environ.get("ALTGRAD_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "altgrad-bench"


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that replaces ``path`` when the block ends, and leaves it alone if it raises."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=temporary_prefix(path.name))
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            raise OSError(
                error.errno, error.strerror, str(path)
            ) from error  # a write names no file
        raise


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk: files that were made or replaced there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise  # else the file system, as CIFS and some of FUSE, knows no such wait for a folder
    finally:
        os.close(handle)


def temporary_prefix(name: str) -> str:
    """How the name of a temporary file or folder begins: it says which process it belongs to."""
    return f".{name}.{_here()}-{os.getpid()}-"


_TEMPORARY = re.compile(r"\..+\.(?P<here>[0-9a-f]{8})-(?P<pid>\d{1,10})-[a-z0-9_]{8}")


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders in ``folder`` of processes on this machine that are gone."""
    for path in folder.glob(".*") if folder.is_dir() else ():
        made = _TEMPORARY.fullmatch(path.name)
        if made is None or made["here"] != _here() or _is_alive(int(made["pid"])):
            continue
        with contextlib.suppress(OSError):  # another sweeps as well, or it is not ours to remove
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@functools.cache
def _here() -> str:
    """Where process ids mean something: this machine, and this container on it."""
    with contextlib.suppress(OSError):
        return _short(f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}")
    return _short(socket.gethostname())


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def leftovers(path: Path) -> list[Path]:
    """What :func:`atomic_file` left of ``path`` in processes that were killed; those that live write there too."""
    return list(path.parent.glob(f".{path.name}.*"))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8.

    A lone surrogate (half of a character, as in the name of a file in another encoding) is written
    as its escape ``\\udcc3``, which JSON and YAML read back.
    """
    with atomic_file(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` to ``path`` atomically, indented."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
