"""Locks that die with their holder, however it ended: that of a run, and that of a suite's folder.

They are ``flock`` on a file that stays; without it, as on Windows, results are read and nothing is run. A copy of the
holder, as libraries fork them, would hold it as well and may outlive the run: it lets go where it begins.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from altgrad_core.errors import UserError
from altgrad_core.results.run_directory import RunDirectory

_SECONDS = 1.0
_POLL_SECONDS = 0.05
_held: set[int] = set()


class RunHeld(UserError):
    """Another process holds the run's lock."""


class LockRefused(UserError):
    """The system gives no lock there at all."""


@contextlib.contextmanager
def run_lock(directory: RunDirectory) -> Iterator[None]:
    """Hold the run's lock, which dies with its holder. Raises :class:`RunHeld` if another process has it.

    It waits a moment for those who only ask whether it is held. Raises :class:`LockRefused` where there
    is nothing to lock, no right to, or a file system without locks.
    """
    with file_lock(directory.lock, seconds=_SECONDS) as held:
        if not held:
            raise RunHeld(
                f"{directory.path} is being run by another process. Wait for it, or stop it."
            )
        yield


@contextlib.contextmanager
def file_lock(path: Path, *, seconds: float, shared: bool = False) -> Iterator[bool]:
    """Hold the lock on a file, alone or with others that share it; whether it could be had in time.

    Raises :class:`LockRefused` as :func:`run_lock` does.
    """
    deadline = time.monotonic() + seconds
    try:
        while (handle := _take(path, shared)) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    except FileNotFoundError as error:
        raise LockRefused(f"the run directory {path.parent} is gone: it was deleted.") from error
    except (ImportError, OSError) as error:
        raise LockRefused(
            f"{path} cannot be locked ({getattr(error, 'strerror', None) or error}), and without a lock two "
            "processes could run one run at once. Name a folder that is there, can be written, and "
            "lies on a file system with locks, with --runs."
        ) from error
    if handle is None:
        yield False
        return
    _held.add(handle)
    try:
        yield True
    finally:
        _held.discard(handle)
        _unlock(handle)


def _take(path: Path, shared: bool) -> int | None:
    """The open lock file, locked; None if another process has it. Raises ``OSError``."""
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), path.stat()):
            return handle
    except BlockingIOError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)  # held, or of a folder that was replaced meanwhile
    return None


def _unlock(handle: int) -> None:
    import fcntl

    with contextlib.suppress(OSError):  # closing it does the same
        fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def is_running(directory: RunDirectory) -> bool:
    """Whether a living process holds the run's lock; where there are no locks, none does."""
    try:
        import fcntl

        handle = os.open(directory.lock, os.O_RDONLY)  # who only looks needs no right to write
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _let_go() -> None:
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
