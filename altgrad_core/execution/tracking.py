"""Trackers beside the run: each in a thread of its own, so that none can harm it.

A tracker that raises is switched off with one notice. A tracker that hangs lets its queue fill up;
what does not fit is dropped with one notice, and at the end it is waited for only so long and then
left behind in its daemon thread.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from altgrad_core._text import plain
from altgrad_core.errors import UserError
from altgrad_core.execution.silence import Silences
from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.tracker import RunInfo, Tracker

_CAPACITY = 10_000
"""Calls that may wait for one tracker. At a few kilobytes each, tens of megabytes."""

_NONE_KNOWN = Silences()

_Call = tuple[str, Callable[[], None]]


def ask_trackers(
    trackers: Sequence[tuple[str, Tracker]],
    log: Callable[[str], None],
    silences: Silences = _NONE_KNOWN,
) -> None:
    """Ask each tracker whether it can work. ``UserError`` if one says what the user must put right.

    What else goes wrong, as no answer within the patience that ``silences`` has, is told to ``log``.
    """
    for name, tracker in trackers:
        timeout = silences.patience(name)
        answers: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        asking = threading.Thread(target=_ask, args=(tracker, answers), daemon=True)
        asking.start()
        try:
            error = answers.get(timeout=timeout)
        except queue.Empty:
            log(f"the tracker {name!r} did not say within {timeout:g} s whether it can work")
            silences.heard(name, False)
            continue
        if isinstance(error, UserError):
            raise UserError(f"the tracker {name!r} cannot work: {error}") from error
        if error is not None:
            what = plain(f"{type(error).__name__}: {error}")
            log(f"the tracker {name!r} may not work: {what}")


def _ask(tracker: Tracker, answers: queue.SimpleQueue[BaseException | None]) -> None:
    try:
        tracker.ready()
    except BaseException as error:  # SystemExit too: it would end this thread in silence
        answers.put(error)
    else:
        answers.put(None)


class TrackerPanel:
    """Passes what happens in a run on to its trackers.

    No method raises because of a tracker, and only :meth:`finish` waits. ``log`` receives notices
    for the reader; it is called from the threads that call the panel, never from a tracker's.

    trackers:
        pairs of name and tracker.
    silences:
        how long :meth:`finish` waits for each tracker, all waiting together, and which did not answer.
    capacity:
        calls that may wait for each tracker.
    """

    def __init__(
        self,
        trackers: Sequence[tuple[str, Tracker]],
        info: RunInfo,
        log: Callable[[str], None],
        silences: Silences = _NONE_KNOWN,
        *,
        capacity: int = _CAPACITY,
    ) -> None:
        self._info, self._log, self._silences = info, log, silences
        self._lanes = [_Lane(name, tracker, capacity) for name, tracker in trackers]
        self._started = False
        self.said: list[str] = []
        """Every notice so far."""

    def start(self) -> None:
        """Start a thread for each tracker, and each tracker in it."""
        self._started = True
        for lane in self._lanes:
            lane.put("start", partial(lane.tracker.start, self._info))
            lane.thread.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass on a copy of the metrics of ``step``."""
        for lane in self._lanes:
            lane.put("log", partial(lane.tracker.log, step, dict(metrics)))
        self._pass_notices_on()

    def event(self, step: int, event: Event) -> None:
        """Pass on an event of ``step``."""
        for lane in self._lanes:
            lane.put("event", partial(lane.tracker.event, step, event))
        self._pass_notices_on()

    def finish(self, status: str, summary: Mapping[str, float]) -> list[str]:
        """Let the trackers finish; the names of those that are still at work when patience is out.

        Their threads are daemons, but a caller that must be sure to exit ends with ``os._exit``.
        """
        if not self._started:
            return []
        begin = time.monotonic()
        for lane in self._lanes:
            lane.close(partial(lane.tracker.finish, status, dict(summary)))
        left_behind = []
        for lane in self._lanes:
            patience = self._silences.patience(lane.name)
            lane.thread.join(max(0.0, begin + patience - time.monotonic()))
            silent = lane.thread.is_alive()
            self._silences.heard(lane.name, not silent)
            if silent:
                left_behind.append(lane.name)
                lane.notices.append(
                    f"the tracker {lane.name!r} was still busy {patience:g} s after the end "
                    f"of the run and was left behind; its copy of the metrics may be incomplete"
                )
        self._pass_notices_on()
        return left_behind

    def _pass_notices_on(self) -> None:
        for lane in self._lanes:
            while lane.notices:
                self.said.append(lane.notices.popleft())
                self._log(self.said[-1])


class _Lane:
    """One tracker with its queue and its thread.

    ``notices`` is filled by both threads and emptied by the panel's; a deque's methods are atomic.
    """

    def __init__(self, name: str, tracker: Tracker, capacity: int) -> None:
        self.name, self.tracker = name, tracker
        self.notices: deque[str] = deque()
        self.thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._capacity = capacity
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._off = False
        self._dropped = 0

    def put(self, hook: str, call: Callable[[], None]) -> None:
        """Queue a call, or drop it when the tracker is off or too far behind."""
        if self._off:
            return
        if self._queue.qsize() < self._capacity:
            self._queue.put((hook, call))
            return
        if not self._dropped:
            self.notices.append(
                f"the tracker {self.name!r} does not keep up: {self._capacity} calls wait for it, "
                f"and it will miss what comes until it has caught up"
            )
        self._dropped += 1

    def close(self, finish: Callable[[], None]) -> None:
        """Queue the last call, for which there is always room, and the end of the thread."""
        if self._dropped and not self._off:
            self.notices.append(f"the tracker {self.name!r} missed {self._dropped} calls")
        self._queue.put(("finish", finish))
        self._queue.put(None)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._off:
                continue
            hook, call = item
            try:
                call()
            except BaseException as error:  # SystemExit too: it would end this thread in silence
                self._off = True
                self.notices.append(
                    f"the tracker {self.name!r} failed in {hook} and is switched off: "
                    f"{type(error).__name__}: {plain(str(error))}"
                )
