"""Locks for file systems without ``flock``: a file for each holder, in whose name it says who it is.

Who wants a lock makes a file of its own beside it, then looks at those of others, and takes its own back where one
of them lives. As each makes its file before it looks, two that come at once see each other, and at most one goes
on. What is left of one that is dead is removed under its own name, which no other ever has: that cannot harm a
holder that came since.

A holder on this machine lives while its process does, which its number and its start tell. Of one elsewhere, or in
another container, the file's time of change is the sign of life: it is renewed every few seconds, and set and
compared by the clock of the file system alone. Silent for a minute, and while it is then watched, it counts as dead.
One that was only suspended finds its file gone when it wakes, and ends itself by SIGTERM.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from altgrad_core._files import temporary_prefix

BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""Without a beat for so long, a holder that is not on this machine is watched."""
WATCHED_SECONDS = 15.0
"""How long it is watched: a clock that was set, or a server that gave no answer, kills nobody."""
_NAME = re.compile(
    r"(?P<machine>[0-9a-f]{12})-(?P<pid>\d{1,10})-(?P<began>\d{1,20})-(?P<kind>shared|alone)-[0-9a-f]{8}"
)
_NOWHERE = "0" * 12


@dataclass(frozen=True)
class Lease:
    """A file that says who holds a lock, or is about to."""

    path: Path
    machine: str
    pid: int
    began: int
    shared: bool

    @property
    def lives(self) -> bool | None:
        """Whether its process is there; None where only its beat can tell: elsewhere, or hidden from us."""
        if self.machine != machine() or self.machine == _NOWHERE:
            return None
        if began := _began(self.pid):
            return began == self.began
        try:
            os.kill(self.pid, 0)
        except PermissionError:  # another user's, of whose processes the system shows nothing
            return None
        except ProcessLookupError:
            return False
        return False  # it has ended, and nobody has asked yet how

    @property
    def beat(self) -> float | None:
        """When the file was last renewed, by the clock of the file system; None where it is gone.

        Opened, since NFS answers from memory what is asked by name.
        """
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.fstat(handle).st_mtime
        finally:
            os.close(handle)


def leases(lock: Path) -> list[Lease]:
    """Those on a lock, dead ones among them. Raises ``OSError``."""
    found = (named(path, lock.name) for path in lock.parent.iterdir())
    return [lease for lease in found if lease is not None]


def named(path: Path, lock: str) -> Lease | None:
    """What the name of a file tells, if it is a lease on a lock of that name."""
    head, name = f"{lock}.held-", path.name
    made = _NAME.fullmatch(name.removeprefix(head)) if name.startswith(head) else None
    if made is None:
        return None
    whose = made["machine"], int(made["pid"]), int(made["began"])
    return Lease(path, *whose, made["kind"] == "shared")


def new_name(lock: str, shared: bool) -> str:
    """The name of a lease of this process, which no other ever has."""
    kind = "shared" if shared else "alone"
    began = _began(os.getpid())
    return f"{lock}.held-{machine()}-{os.getpid()}-{began}-{kind}-{secrets.token_hex(4)}"


def is_leased(lock: Path) -> bool:
    """Whether a living process holds a lease on the lock. Asks for no right to write. Raises ``OSError``."""
    found = leases(lock)
    if any(one.lives for one in found):
        return True
    beats = [beat for one in found if one.lives is None and (beat := one.beat) is not None]
    return bool(beats) and _time_there(lock.parent) - max(beats) < SILENT_SECONDS


def take(lock: Path, shared: bool) -> Path | None:
    """The lease, which beats until it is given back; None if another has one. Raises ``OSError``.

    Two that ask at once may both get none. Watches one that is silent, which takes :data:`WATCHED_SECONDS`.
    """
    _bury(leases(lock))
    mine = lock.with_name(new_name(lock.name, shared))
    os.close(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    try:
        others = [one for one in leases(lock) if one.path != mine]
        if any(not (shared and one.shared) for one in others if _may_live(one)):
            mine.unlink(missing_ok=True)
            return None
    except BaseException:
        mine.unlink(missing_ok=True)
        raise
    _heart.add(mine)
    return mine


def give_back(mine: Path) -> None:
    """End a lease. One that this process took before it was forked is another's, and stays."""
    if _heart.remove(mine):
        # Where its folder is gone, or refuses, it dies with the process.
        with contextlib.suppress(OSError):
            mine.unlink(missing_ok=True)


def _may_live(one: Lease) -> bool:
    return one.beat is not None if one.lives is None else one.lives


def _bury(found: Sequence[Lease]) -> None:
    """Remove the leases of dead holders."""
    lives = {one: one.lives for one in found}
    dead = [one for one in found if lives[one] is False]
    beats = {one: beat for one in found if lives[one] is None and (beat := one.beat) is not None}
    if beats and not any(lives.values()):  # else there is nothing to be won by waiting
        now = _time_there(found[0].path.parent)
        if all(now - beat >= SILENT_SECONDS for beat in beats.values()):
            time.sleep(WATCHED_SECONDS)
            dead += [one for one, beat in beats.items() if one.beat == beat]
    for one in dead:
        one.path.unlink(missing_ok=True)


def _time_there(folder: Path) -> float:
    """The time of the file system's clock; of our own where nothing can be written."""
    probe = folder / f"{temporary_prefix('clock')}{secrets.token_hex(4)}"
    try:
        handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError:
        return time.time()
    try:
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        probe.unlink(missing_ok=True)


@functools.cache
def machine() -> str:
    """This machine since it was started, and the container on it: where process ids mean something.

    Not the machine's name, which those that were made from one image share.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        container = Path("/proc/self/ns/pid").readlink()
        return hashlib.sha256(f"{boot}{container}".encode()).hexdigest()[:12]
    except OSError:  # not Linux: the beat alone tells
        return _NOWHERE


def _began(pid: int) -> int:
    """When the process was started, in ticks since the machine was; 0 where it is gone, or cannot be told."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    after_name = state.rpartition(")")[2].split()
    return 0 if after_name[0] in "ZX" else int(after_name[19])


class _Heart:
    """A thread that renews what this process holds."""

    def __init__(self) -> None:
        self._guard, self._held, self._stop = threading.Lock(), set[Path](), threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, mine: Path) -> None:
        with self._guard:
            self._held.add(mine)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="leases", daemon=True)
                self._thread.start()

    def remove(self, mine: Path) -> bool:
        with self._guard:
            there = mine in self._held
            self._held.discard(mine)
        return there

    def _work(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            for mine in self._lost():
                print(
                    f"{mine.parent / mine.name.partition('.held-')[0]} was lost: this process gave no sign of life "
                    f"for {SILENT_SECONDS:g} s, and counts as gone. It ends, so that no two run one run.",
                    file=sys.stderr,
                    flush=True,
                )
                os.kill(os.getpid(), signal.SIGTERM)

    def _lost(self) -> Iterator[Path]:
        with self._guard:
            held = tuple(self._held)
        for mine in held:
            try:
                os.utime(mine)  # by the clock of the file system
            except FileNotFoundError:
                # Where the whole folder is gone there is nothing left to harm.
                if self._gone(mine):
                    yield mine
            except OSError:  # the server gives no answer, to others neither
                continue

    def _gone(self, mine: Path) -> bool:
        return mine.parent.is_dir() and self.remove(mine)


_heart = _Heart()


def _begin_anew() -> None:
    global _heart
    _heart = _Heart()  # a copy of the process holds nothing


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
