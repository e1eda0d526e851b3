"""A suite whose runs are kept on a store: its plan is shared there, and its runs are made in a folder here."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from altgrad_core.execution.plan_file import SuiteHold
from altgrad_core.locks.lock import RunHeld, is_running, run_lock
from altgrad_core.results.remote.lease import Onlooker, StoreLock
from altgrad_core.results.remote.mirror import (
    RunMirror,
    bring_records,
    lacking,
    report_name,
    status_of,
    write_bytes,
)
from altgrad_core.results.remote.store import Info, StoreFault, open_store
from altgrad_core.results.run_directory import FINISHED, RunDirectory

_T = TypeVar("_T")
_OF_SUITE = ("plan.json", "tuning.json")
_ID = "[0-9a-f]" * 12
FIRST_SECONDS = 20.0
"""How long a store that gives no answer is asked again at the beginning and the end of a suite."""
_LATER_SECONDS = 300.0
_POLL_SECONDS = 10.0
"""How often it is looked whether others have ended their runs."""


class StoreHold(SuiteHold):
    """As ``SuiteHold``, among all machines that run the suite with this URL.

    Raises ``UserError`` where the URL cannot be used at all.
    """

    def __init__(self, folder: Path, url: str, say: Callable[[str], None]) -> None:
        super().__init__(folder)
        self.store, self._say = url, say
        self._there = open_store(url)
        self.imports = (self._there.module,)
        self._lock = StoreLock(self._there, folder.name)
        self._patience, self._joined = FIRST_SECONDS, False
        self._ended: set[str] = set()
        self._cut: set[str] = set()
        self._looked: dict[str, float] = {}
        self._onlooker = Onlooker()

    @contextlib.contextmanager
    def changing(self) -> Iterator[bool]:
        """Keep others, here and there, from beginning; whether another process runs the suite.

        On the way in, what others have declared and ended is brought here; on the way out, the plan and
        the runs that nobody has begun are sent.
        """
        with super().changing() as others, contextlib.ExitStack() as held:
            changing = StoreLock(self._there, self._folder.name, "plan.lock")
            self._until(changing.take)
            held.callback(changing.give_back)
            alone = self._patiently(self._lock.take)
            self._lock.give_back()
            listed = self._patiently(self._bring)
            yield others or not alone
            self._patiently(lambda: self._send(listed))
            self._until(lambda: self._lock.take(shared=True))
        self._patience, self._joined = _LATER_SECONDS, True

    def close(self) -> None:
        """Let go of the folder, here and there."""
        self._lock.give_back()
        super().close()

    def __exit__(self, *end: Any) -> bool | None:
        self._lock.give_back()
        return super().__exit__(*end)

    def ended(self, directory: RunDirectory) -> None:
        """See ``SuiteHold``. What a process on another machine has left is brought."""
        self._ended.add(directory.path.name)
        if directory.status().status not in FINISHED:
            with contextlib.suppress(StoreFault):
                self._arrive(directory)

    def bring_report(self, path: Path) -> None:
        """See ``SuiteHold``."""
        name = report_name(path)
        for _, content in () if path.exists() else self._patiently(lambda: [*self._read([name])]):
            path.write_bytes(content)
            self._there.remove([f"{self._folder.name}/{name}"])

    def is_running(self, directory: RunDirectory) -> bool:
        """See ``SuiteHold``; elsewhere as well, which is looked at now and then."""
        name, now = directory.path.name, time.monotonic()
        if (
            is_running(directory.lock)
            or now - self._looked.get(name, -_POLL_SECONDS) < _POLL_SECONDS
        ):
            return True
        self._looked[name] = now
        held = self._patiently(
            lambda: self._onlooker.sees_holder(self._there, f"{self._folder.name}/{name}")
        )
        self._patiently(lambda: self._arrive(directory))
        return held

    def deliver(self) -> dict[str, str]:
        """See ``SuiteHold``. Sends results that are not there, or cut, from an earlier time as well."""
        left: dict[str, str] = {}
        self._patience = FIRST_SECONDS
        for directory in self._undelivered() if self._joined else ():
            try:
                self._patiently(lambda one=directory: self._deliver(one))  # type: ignore[misc]
            except StoreFault as fault:
                self._patience = 0.0
                left[directory.path.name] = str(fault)
        if self._joined and not left:
            with contextlib.suppress(StoreFault):  # they are sent with the next plan as well
                self._send_files("tuning.json")
        return left

    def _deliver(self, directory: RunDirectory) -> None:
        mirror = RunMirror(self._there, directory, self._say)
        with contextlib.suppress(RunHeld), run_lock(directory.lock):  # who holds it sends it
            try:
                mirror.take()
                mirror.deliver()
            finally:
                mirror.lock.give_back()

    def _undelivered(self) -> list[RunDirectory]:
        here = {path.parent.name: RunDirectory(path.parent) for path in self._specs()}
        statuses = {name: one.status() for name, one in here.items()}
        ended = {
            name
            for name, one in statuses.items()
            if one.status in FINISHED or (name in self._ended and one.started is not None)
        }
        try:
            there = dict(
                self._patiently(lambda: [*self._read(f"{name}/status.json" for name in ended)])
            )
        except StoreFault:
            there = {}
        return [
            here[name]
            for name in sorted(ended)
            if name in self._cut
            or there.get(f"{name}/status.json") != here[name].status_file.read_bytes()
        ]

    def _arrive(self, directory: RunDirectory) -> None:
        """Bring how a run stands there, with its record if that is a result."""
        name = directory.path.name
        for _, raw in self._read([f"{name}/status.json"]):
            if status_of(raw).status in FINISHED:
                bring_records(self._there, self._folder, {name: raw})
            elif status_of(raw).started is not None and not directory.log.exists():  # not made here
                write_bytes(directory.status_file, raw)

    def _bring(self) -> dict[str, Info]:
        """Bring the plan, and the records of runs that have a result there and none here; what there is."""
        listed = self._there.find(self._folder.name)
        for name, content in self._read(name for name in _OF_SUITE if name in listed):
            write_bytes(self._folder / name, content)
        ids = (name.partition("/")[0] for name in listed if name.endswith("/status.json"))
        wanted = [
            f"{one}/status.json" for one in ids if re.fullmatch(_ID, one) and self._lacks(one)
        ]
        found = {name.partition("/")[0]: raw for name, raw in self._read(wanted)}
        done = {run_id: raw for run_id, raw in found.items() if status_of(raw).status in FINISHED}
        bring_records(self._there, self._folder, done)
        self._cut = self._cut_there(listed)
        return listed

    def _cut_there(self, listed: Mapping[str, Info]) -> set[str]:
        """Runs that have a result here, of which files there are missing, or not as long."""
        runs = [RunDirectory(path.parent) for path in self._specs()]
        ended = [one for one in runs if one.status().status in FINISHED]
        return {
            one.path.name
            for one in ended
            if lacking(one, listed, f"{one.path.name}/") and not one.damage()
        }

    def _lacks(self, run_id: str) -> bool:
        directory = RunDirectory(self._folder / run_id)
        return directory.status().status not in FINISHED and not is_running(directory.lock)

    def _send(self, listed: Mapping[str, Info]) -> None:
        """Send the specs of runs that are not there as they are here, and then the plan."""
        specs = {f"{path.parent.name}/spec.yaml": path for path in self._specs()}
        new = {n: p for n, p in specs.items() if listed.get(n, {}).get("size") != p.stat().st_size}
        head = self._folder.name
        self._there.write_many({f"{head}/{name}": path.read_bytes() for name, path in new.items()})
        self._send_files(*_OF_SUITE)

    def _send_files(self, *names: str) -> None:
        for path in (self._folder / name for name in names):
            if path.exists():
                self._there.write(f"{self._folder.name}/{path.name}", path.read_bytes())

    def _read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Name in the suite's folder and contents of those that are there."""
        head = f"{self._folder.name}/"
        for name, content in self._there.read_many(head + name for name in names):
            yield name.removeprefix(head), content

    def _specs(self) -> list[Path]:
        return sorted(self._folder.glob(f"{_ID}/spec.yaml"))

    def _until(self, take: Callable[[], bool]) -> None:
        while not self._patiently(take):
            time.sleep(random.uniform(0.5, 1.5))

    def _patiently(self, work: Callable[[], _T]) -> _T:
        """What the store answers, which is asked again for a while. Raises ``StoreFault``."""
        deadline, wait = time.monotonic() + self._patience, 1.0
        while True:
            try:
                return work()
            except StoreFault as fault:
                if time.monotonic() + wait > deadline:
                    raise
                self._say(f"note: trying again in {wait:g} s: {fault}")
            time.sleep(wait)
            wait = min(2 * wait, 30.0)
