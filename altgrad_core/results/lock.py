"""The lock of a run: held by the process that runs it, gone when that is gone, however it ended.

It is ``flock`` on a file that stays. A copy of the holder, as libraries fork them, would hold it as well and may
outlive the run: it lets go where it begins.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

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
    deadline = time.monotonic() + _SECONDS
    try:
        while (handle := _take(directory)) is None:
            if time.monotonic() > deadline:
                raise RunHeld(
                    f"{directory.path} is being run by another process. Wait for it, or stop it."
                )
            time.sleep(_POLL_SECONDS)
    except FileNotFoundError as error:
        raise LockRefused(f"the run directory {directory.path} is gone: it was deleted.") from error
    except OSError as error:
        raise LockRefused(
            f"{directory.lock} cannot be locked ({error.strerror or error}), and without a lock two "
            "processes could run one run at once. Name a folder that is there, can be written, and "
            "lies on a file system with locks, with --runs."
        ) from error
    _held.add(handle)
    try:
        yield
    finally:
        _held.discard(handle)
        with contextlib.suppress(OSError):  # closing it does the same
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _take(directory: RunDirectory) -> int | None:
    """The open lock file, locked; None if another process has it. Raises ``OSError``."""
    handle = os.open(directory.lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), directory.lock.stat()):
            return handle
    except BlockingIOError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)  # held, or of a folder that was replaced meanwhile
    return None


def is_running(directory: RunDirectory) -> bool:
    """Whether a living process holds the run's lock; where there are no locks, none does."""
    try:
        handle = os.open(directory.lock, os.O_RDONLY)  # who only looks needs no right to write
    except OSError:
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


os.register_at_fork(after_in_child=_let_go)
