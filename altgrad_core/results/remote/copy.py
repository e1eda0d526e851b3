"""Copies of what is recorded on a store, for all that reads results: brought up to date when asked for.

Only files of known names are copied, no checkpoints and no logs; what has not changed is not read again.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from altgrad_core._files import write_json
from altgrad_core.errors import UserError
from altgrad_core.results.archive import LARGEST_FILE, OF_RUN, OF_SUITE, SUITE
from altgrad_core.results.objects import read_object
from altgrad_core.results.remote.mirror import write_bytes
from altgrad_core.results.remote.store import Info, Store, modified, open_store
from altgrad_core.results.remote.url import here
from altgrad_core.results.run_directory import FINISHED, RunDirectory
from altgrad_core.results.stored import StoredSuite, read_suites

_HOLDER = "lock.held-"
_MEANT = re.compile(
    rf"(?:{SUITE}/)?(?:(?:{'|'.join(map(re.escape, OF_SUITE))})"
    rf"|(?:[0-9a-f]{{12}}/)?(?:{'|'.join(map(re.escape, OF_RUN))}|{re.escape(_HOLDER)}[0-9a-z-]+))"
)
"""What is copied, below the URL of a folder of suites, a suite or a run."""
_INDEX = ".index.json"
_FOLLOW_SECONDS = 5.0


def local_copy(url: str) -> Path:
    """The folder of what lies at ``url``: a run directory, a suite, or a folder of suites.

    Raises ``UserError`` where no results are there, or the store gives no answer.
    """
    store = open_store(url)
    folder = here(url) / "copies" / url.rpartition("/")[2]
    listed = {name: one for name, one in store.find().items() if _MEANT.fullmatch(name)}
    if not any(name.endswith(("spec.yaml", "plan.json")) for name in listed):
        raise UserError(
            f"{url} holds no results: it is neither a run directory, nor a suite's folder of them, nor a folder of "
            "suites. Run the suite first, or name another URL."
        )
    for name, one in listed.items():
        if int(one.get("size") or 0) > LARGEST_FILE:
            raise UserError(f"{url}/{name} is larger than a file of a run may be.")
    _bring(store, folder, listed)
    return folder


def _bring(store: Store, folder: Path, listed: Mapping[str, Info]) -> None:
    """Bring what has changed since the last time, statuses first: they then vouch for what comes after them."""
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[str, str] = {}
    with suppress(UserError):  # a damaged index: everything is brought anew
        known = read_object(folder / _INDEX)
    marks = {name: _mark(one) for name, one in listed.items()}
    changed = [n for n, mark in marks.items() if known.get(n) != mark or not (folder / n).exists()]
    changed.sort(key=lambda name: not name.endswith("status.json"))
    _read(store, folder, changed, listed)
    torn = {n.rpartition("/")[0] for n in changed if _is_torn(RunDirectory((folder / n).parent))}
    again = [name for name in listed if name.rpartition("/")[0] in torn]
    _read(store, folder, again, listed)  # it ended while it was copied
    for name in known.keys() - marks.keys():
        if _MEANT.fullmatch(name):
            (folder / name).unlink(missing_ok=True)
    write_json(folder / _INDEX, marks)


def _read(store: Store, folder: Path, names: list[str], listed: Mapping[str, Info]) -> None:
    sizes = {name: int(listed[name].get("size") or 0) for name in names}
    for name, content in store.read_many(names, sizes):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / name, content)
        when = modified(listed[name])
        if _HOLDER in name and when is not None:  # its time is the sign of life that is looked at
            os.utime(folder / name, (when, when))


def _is_torn(directory: RunDirectory) -> bool:
    return directory.status().status in FINISHED and bool(directory.damage())


def _mark(one: Info) -> str:
    return hashlib.sha256(repr(sorted(one.items(), key=str)).encode()).hexdigest()[:16]


def read_copies(url: str) -> tuple[StoredSuite, ...]:
    """The suites at a URL, with runs that are shown as lying there. Raises ``UserError`` as :func:`local_copy`."""
    folder = local_copy(url)

    def shown(path: Path) -> str:
        return f"{url}/{path.relative_to(folder)}".removesuffix("/.")

    suites = read_suites(folder, shown)
    return tuple(replace(suite, source=shown(suite.path)) for suite in suites)


@contextmanager
def followed(url: str) -> Iterator[None]:
    """Keep the copy of what lies at ``url`` up to date while the context lasts, as far as the store answers."""
    end = threading.Event()

    def follow() -> None:
        while not end.wait(_FOLLOW_SECONDS):
            with suppress(UserError, OSError):  # the next time, perhaps
                local_copy(url)

    threading.Thread(target=follow, name="copies", daemon=True).start()
    try:
        yield
    finally:
        end.set()
