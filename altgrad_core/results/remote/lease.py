"""Locks on a store: a file for each holder, as :mod:`altgrad_core.locks.lease` has them in folders.

Who wants a lock writes a file of its own, then looks at those of others, and removes its own where one of them lives:
as each writes before it looks, at most one goes on, without exclusive creation. A holder writes its file anew every
:data:`BEAT_SECONDS`. One on another machine counts as dead when that has not happened for :data:`SILENT_SECONDS` by the
store's own clock, and then not for :data:`WATCHED_SECONDS` while it was watched.

What remains possible: a holder that was cut off for so long, and is not dead, goes on beside its successor. It learns
at its next beat that it holds nothing any more, and sends nothing from then on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from altgrad_core.locks.lease import Lease, machine, named, new_name
from altgrad_core.results.remote.store import Info, Store, StoreFault, modified

BEAT_SECONDS = 15.0
SILENT_SECONDS = 90.0
WATCHED_SECONDS = 35.0


class StoreLock:
    """The lock ``lock`` of a folder on a store, as this process wants or holds it."""

    def __init__(self, store: Store, folder: str, lock: str = "lock") -> None:
        self._store, self._folder, self._lock = store, folder, lock
        self._mine = ""
        self._count = 0
        self._guard = threading.Lock()  # or a beat might bring back what was given back

    @property
    def held(self) -> bool:
        """Whether this process has it, for all it knows."""
        return bool(self._mine)

    @property
    def name(self) -> str:
        """That of its file."""
        return self._mine

    def take(self, *, shared: bool = False) -> bool:
        """Whether it could be had. Watches a silent holder, which takes :data:`WATCHED_SECONDS`.

        Raises :class:`~altgrad_core.results.remote.store.StoreFault`.
        """
        mine = new_name(self._lock, shared)
        try:
            self._mine = mine
            _names.add(mine)
            self._store.write(f"{self._folder}/{mine}", b"0")
            _hearts.add(self)
            free = self._is_free(mine, shared)
        except BaseException:
            self.give_back()
            raise
        if not free:
            self.give_back()
        return free

    def give_back(self) -> None:
        """Let go of it, whether it was had or not; where the store does not answer, as soon as it does."""
        with self._guard:
            mine, self._mine = self._mine, ""
            _names.discard(mine)
            _hearts.remove(self)
            if mine:
                _drop(self._store, f"{self._folder}/{mine}")

    def beat(self) -> None:
        """Give a sign of life. Does nothing where the store gives no answer."""
        with self._guard:
            if not self._mine:
                return
            try:
                if self._mine in self._store.ls(self._folder):
                    self._count += 1
                    self._store.write(f"{self._folder}/{self._mine}", str(self._count).encode())
                    return
            except StoreFault:
                return
            self._mine = ""  # another has taken this one for dead
            _hearts.remove(self)

    def _is_free(self, mine: str, shared: bool) -> bool:
        """Whether no other lives that is in the way; the files of those that are dead are removed."""
        listed = self._store.ls(self._folder)
        if mine not in listed:
            raise StoreFault(
                f"{self._store.url} does not list what was just written, so that no lock can be had on it."
            )
        others = {
            lease.path.name: lease
            for name in listed
            if name != mine and (lease := named(Path(name), self._lock)) is not None
            if not (shared and lease.shared)
        }
        lives = {name: alive(lease, listed[name], listed[mine]) for name, lease in others.items()}
        if any(lives.values()):
            return False
        silent = {name: listed[name] for name, one in lives.items() if one is None}
        if silent and self._one_beats(silent, _watched(silent, listed[mine])):
            return False
        self._store.remove([f"{self._folder}/{name}" for name in others])
        return True

    def _one_beats(self, silent: Mapping[str, Info], seconds: float) -> bool:
        before = self._contents(silent)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(min(BEAT_SECONDS / 2, seconds))
            now = self._contents(silent)
            if any(now[name] != before[name] for name in now.keys() & before.keys()):
                return True
        return False

    def _contents(self, names: Mapping[str, Info]) -> dict[str, bytes]:
        return dict(self._store.read_many([f"{self._folder}/{name}" for name in names]))


def alive(lease: Lease, its: Info, mine: Info) -> bool | None:
    """Whether a holder lives, by its process or by the time of its last beat; None: watch it.

    mine:
        what was just written, for the time on the store.
    """
    if lease.lives is not None:
        return lease.lives and not _given_back(lease)
    then, now = modified(its), modified(mine)
    if then is None or now is None:
        return None
    return True if now - then < SILENT_SECONDS else None


def _given_back(lease: Lease) -> bool:
    """Whether it is of this process, which holds it no more: a call that hung has written it since."""
    return (lease.machine, lease.pid) == (machine(), os.getpid()) and lease.path.name not in _names


def _watched(silent: Mapping[str, Info], mine: Info) -> float:
    """How long to watch: in full where the store does not say how long they have been silent."""
    known = all(modified(one) is not None for one in (*silent.values(), mine))
    return WATCHED_SECONDS if known else SILENT_SECONDS


class Onlooker:
    """Tells whether a lock is held by somebody, without asking for it: by looking now and then."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, float]] = {}

    def sees_holder(self, store: Store, folder: str, lock: str = "lock") -> bool:
        """Whether a holder lives, or may: silence counts from when it was first seen. Raises ``StoreFault``."""
        listed = store.ls(folder)
        holders = [one for name in listed if (one := named(Path(name), lock)) is not None]
        if any(one.lives for one in holders):
            return True
        signs = repr([listed[one.path.name] for one in holders if one.lives is None])
        before, since = self._seen.get(folder, ("", 0.0))
        if signs == "[]" or signs != before:
            self._seen[folder] = signs, time.monotonic()
            return signs != "[]"
        return time.monotonic() - since < SILENT_SECONDS


class _Hearts:
    """A thread that beats for every lock that this process holds."""

    def __init__(self) -> None:
        self._guard, self._stop = threading.Lock(), threading.Event()
        self._held: set[StoreLock] = set()
        self.left: list[tuple[Store, str]] = []
        """Files of locks that were given back and could not be removed."""
        self._thread: threading.Thread | None = None

    def add(self, lock: StoreLock) -> None:
        with self._guard:
            self._held.add(lock)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="beats", daemon=True)
                self._thread.start()

    def remove(self, lock: StoreLock) -> None:
        with self._guard:
            self._held.discard(lock)

    def _work(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with self._guard:
                held = tuple(self._held)
                left, self.left = self.left, []
            for lock in held:
                lock.beat()
            for store, name in left:
                _drop(store, name)


_hearts = _Hearts()
_names: set[str] = set()
"""The files of what this process holds, or is about to."""


def _drop(store: Store, name: str) -> None:
    try:
        store.remove([name])
    except StoreFault:
        _hearts.left.append((store, name))


def _begin_anew() -> None:
    global _hearts
    _hearts = _Hearts()  # a copy of the process holds nothing


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
