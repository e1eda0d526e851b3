"""Telling the trackers of a suite, in the process that runs it, what happens to it: see ``Offer.notify``.

They are told one after another by a thread of its own, which is waited for only so long at the end. One that
raises or hangs costs its notices, and a line that says so.
"""

from __future__ import annotations

import json
import queue
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from altgrad_core._text import plain
from altgrad_core.errors import UserError
from altgrad_core.execution.cells import SuiteResult
from altgrad_core.execution.options import Observer
from altgrad_core.interfaces.executor import Job
from altgrad_core.interfaces.notice import Notice, NoticeKind
from altgrad_core.planning.plan import Plan
from altgrad_core.registry.catalog import catalog, imported
from altgrad_core.results.run_directory import FAILED, Status

_PATIENCE_SECONDS = 15.0
"""How long the end of a suite waits for what is still to be told."""

Receiver = tuple[str, Callable[[Notice], None]]


def receivers(plan: Plan) -> list[Receiver]:
    """The trackers of a plan's runs that take notices: name, and what takes one. Raises ``UserError``."""
    specs = [spec for cell in plan.cells if (spec := cell.spec or cell.template) is not None]
    choices = {
        (choice.name, json.dumps(choice.settings, sort_keys=True)): choice
        for spec in specs
        for choice in spec.trackers
    }
    found: list[Receiver] = []
    for choice in choices.values():
        entry = catalog().get("tracker", choice.name)
        if entry.offer.notify is not None:
            function = imported(entry, entry.offer.notify)
            settings = catalog().validate("tracker", choice.name, choice.settings)
            found.append((choice.name, partial(function, settings)))
    return found


class NoticeBoard:
    """What happens to a suite, told to its trackers; a context that ends with the suite.

    Entering it tells them that it begins, and raises the ``UserError`` of one that cannot work.
    """

    def __init__(
        self,
        trackers: list[Receiver],
        suite: str,
        folder: Path,
        say: Callable[[str], None],
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self._trackers, self._suite, self._folder = trackers, suite, folder
        self._say, self._patience = say, patience
        self._queue: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
        self._faults: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._result: SuiteResult | None = None

    def __enter__(self) -> Self:
        notice = Notice("suite_begins", self._suite, f"{self._suite} begins", self._folder)
        for name, tell in self._trackers:
            try:
                tell(notice)
            except UserError as error:
                raise UserError(f"the tracker {name!r} cannot work: {error}") from error
            except Exception as error:
                self._fault(name, error)
        if self._trackers:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if not self._trackers:
            return
        text, counts = _end(self._result, error)
        self.tell("suite_ended", text, counts=counts)
        self._queue.put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._say(f"note: after {self._patience:g} s not all notices had been passed on")
        while not self._faults.empty():
            self._say(self._faults.get())

    def ended(self, result: SuiteResult) -> SuiteResult:
        """The suite has ended by itself, with this result."""
        self._result = result
        return result

    def tell(self, kind: NoticeKind, text: str, **more: Any) -> None:
        """Have the trackers told, with ``more`` fields of the notice. Does not wait, and raises nothing."""
        if self._trackers:
            text = plain(f"{self._suite}: {text}")
            self._queue.put(Notice(kind, self._suite, text, self._folder, **more))

    def _work(self) -> None:
        off: set[str] = set()
        while (notice := self._queue.get()) is not None:
            for name, tell in self._trackers:
                try:
                    if name not in off:
                        tell(notice)
                except (
                    BaseException
                ) as error:  # SystemExit too: it would end this thread in silence
                    if name not in off:
                        self._fault(name, error)
                    off |= {name} if isinstance(error, UserError) else set()

    def _fault(self, name: str, error: BaseException) -> None:
        what = plain(f"{type(error).__name__}: {error}")
        self._faults.put(f"note: the tracker {name!r} could not pass on a notice: {what}")


def _end(result: SuiteResult | None, error: BaseException | None) -> tuple[str, dict[str, int]]:
    if result is None:
        return f"ended early: {error or type(error).__name__}", {}
    counts = dict(Counter(str(status.status) for status in result.statuses.values()))
    told = ", ".join(f"{number} {status}" for status, number in counts.items())
    return f"ended, {told}" if told else "ended", counts


@dataclass(frozen=True)
class Noticing:
    """An observer that has notices sent of what it sees, and passes everything on."""

    board: NoticeBoard
    observer: Observer

    def finished(self, job: Job, status: Status) -> None:
        """A run has ended."""
        if status.status in FAILED:
            why = f"{job.label} ended without a result: {status.status} ({status.message})"
            self.board.tell("run_failed", why, **_of(job, status))
        self.observer.finished(job, status)

    def tried_again(self, job: Job, status: Status, how: str) -> None:
        """A run ended without a result and is run again."""
        why = f"{job.label}: {status.status} ({status.message}); {how}"
        self.board.tell("run_retried", why, **_of(job, status))
        self.observer.tried_again(job, status, how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.observer, name)


def _of(job: Job, status: Status) -> dict[str, str]:
    return {"run": job.run_id, "label": job.label, "status": status.status}
