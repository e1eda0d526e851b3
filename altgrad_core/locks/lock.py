"""Locks that die with their holder, however it ended: that of a run, and that of a suite's folder.

They are ``flock`` on a file that stays. Where that cannot be had, or may hold on one machine only (on a file system
that others may use), they are leases as well (:mod:`altgrad_core.locks.lease`), which are heeded everywhere.
Without ``fcntl``, as on Windows, results are read and nothing is run. A copy of the holder, as libraries fork them,
would hold ``flock`` as well and may outlive the run: it lets go where it begins.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from altgrad_core.errors import UserError
from altgrad_core.locks.lease import give_back, is_leased, leases, take
from altgrad_core.locks.mounts import is_local

LOCKS = "ALTGRAD_LOCKS"
"""Environment variable: ``files`` takes leases everywhere, also where ``flock`` is trusted."""
_SECONDS = 1.0
_POLL_SECONDS = 0.05
_UNLOCKABLE = frozenset(
    (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY)
)
"""What file systems without ``flock`` answer."""
_held: set[int] = set()


class RunHeld(UserError):
    """Another process holds the run's lock."""


class LockRefused(UserError):
    """The system gives no lock there at all."""


@contextlib.contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold a run's lock, the file ``path``, which dies with its holder.

    It waits a moment for those who only ask whether it is held. Raises :class:`RunHeld` if another
    process has it, and :class:`LockRefused` where there is nothing to lock, no right to, or a file
    system without locks.
    """
    with file_lock(path, seconds=_SECONDS) as held:
        if not held:
            raise RunHeld(
                f"{path.parent} is being run by another process. Wait for it, or stop it."
            )
        yield


@contextlib.contextmanager
def file_lock(path: Path, *, seconds: float, shared: bool = False) -> Iterator[bool]:
    """Hold the lock on a file, alone or with others that share it; whether it could be had in time.

    Raises :class:`LockRefused` as :func:`run_lock` does.
    """
    deadline = time.monotonic() + seconds
    try:
        while (hold := _take(path, shared)) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS * random.uniform(0.5, 1.5))  # two that met do not meet again
    except FileNotFoundError as error:
        raise LockRefused(f"the run directory {path.parent} is gone: it was deleted.") from error
    except (ImportError, OSError) as error:
        raise LockRefused(
            f"{path} cannot be locked ({getattr(error, 'strerror', None) or error}), and without a lock two "
            "processes could run one run at once. Name a folder that is there and can be written, with --runs."
        ) from error
    if hold is None:
        yield False
        return
    with hold:
        yield True


def _take(path: Path, shared: bool) -> contextlib.ExitStack | None:
    """What holds the lock until it is closed; None if another process has it. Raises ``OSError``."""
    with contextlib.ExitStack() as hold:
        try:
            flocked = _flock(path, shared)
        except OSError as error:
            if error.errno not in _UNLOCKABLE:
                raise
            sure = False
        else:
            if flocked is None:
                return None
            hold.callback(_unlock, flocked)
            sure = is_local(path.parent) and os.environ.get(LOCKS) != "files"
        if not sure or leases(path):
            lease = take(path, shared)
            if lease is None:
                return None
            hold.callback(give_back, lease)
        return hold.pop_all()


def _flock(path: Path, shared: bool) -> int | None:
    """The open lock file, locked; None if another process has it. Raises ``OSError``."""
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), path.stat()):
            _held.add(handle)
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

    if handle not in _held:  # it was another's, of which this is a copy
        return
    _held.discard(handle)
    with contextlib.suppress(OSError):  # closing it does the same
        fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def is_running(path: Path) -> bool:
    """Whether a living process holds the run's lock; where there are no locks, none does."""
    if _is_flocked(path):
        return True
    with contextlib.suppress(OSError):
        return is_leased(path)
    return False


def _is_flocked(path: Path) -> bool:
    try:
        import fcntl

        handle = os.open(path, os.O_RDONLY)  # who only looks needs no right to write
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
