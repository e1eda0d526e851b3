"""Trackers that raise, hang or dawdle: the run never notices."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.execution import silence
from altgrad_core.execution.silence import Silences
from altgrad_core.execution.tracking import TrackerPanel, ask_trackers
from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.tracker import RunInfo, Tracker
from altgrad_core.testing.trackers import check_tracker

INFO = RunInfo("0123456789ab", "suite", "e5m2_adamw", 1, Path(), {"seed": 1})
EVENT = Event("rank_collapse", "layer", "message", alert=True)
HOOKS = ("start", "log", "event", "finish")


class Recorder(Tracker):
    """Notes its calls; raises or waits where it is told to."""

    def __init__(self, raises: Mapping[str, BaseException] | None = None, wait: Any = None) -> None:
        self.raises = dict(raises or {})
        self.waits: dict[str, threading.Event] = dict(wait or {})
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()

    def _note(self, hook: str, *arguments: Any) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append((hook, *arguments))
        if hook in self.waits:
            self.waits[hook].wait()
        if hook in self.raises:
            raise self.raises[hook]

    def start(self, run: RunInfo) -> None:
        self._note("start", run)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._note("log", step, metrics)

    def event(self, step: int, event: Event) -> None:
        self._note("event", step, event)

    def finish(self, status: str, summary: Mapping[str, float]) -> None:
        self._note("finish", status, summary)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds threads up until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def live(panel: TrackerPanel, steps: int = 3) -> list[str]:
    panel.start()
    for step in range(1, steps + 1):
        panel.log(step, {"train/all/loss": 1.0 / step})
    panel.event(steps, EVENT)
    return panel.finish("ok", {"final/test/f1_micro": 0.5})


EVERYTHING = [
    ("start", INFO),
    ("log", 1, {"train/all/loss": 1.0}),
    ("log", 2, {"train/all/loss": 0.5}),
    ("log", 3, {"train/all/loss": 1 / 3}),
    ("event", 3, EVENT),
    ("finish", "ok", {"final/test/f1_micro": 0.5}),
]


def test_every_tracker_gets_everything_in_order_in_a_thread_of_its_own() -> None:
    one, two, notices = Recorder(), Recorder(), list[str]()
    assert live(TrackerPanel([("one", one), ("two", two)], INFO, notices.append)) == []
    assert one.calls == two.calls == EVERYTHING
    assert len(one.threads | two.threads | {threading.get_ident()}) == 3
    assert notices == []


@pytest.mark.parametrize("error", [ValueError("no such host"), SystemExit("no such host")])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_tracker_that_raises_is_switched_off_with_one_notice(
    hook: str, error: BaseException
) -> None:
    bad, good, notices = Recorder({hook: error}), Recorder(), list[str]()
    assert live(TrackerPanel([("bad", bad), ("good", good)], INFO, notices.append)) == []
    kind = type(error).__name__
    assert notices == [
        f"the tracker 'bad' failed in {hook} and is switched off: {kind}: no such host"
    ]
    assert bad.calls == EVERYTHING[: [call[0] for call in EVERYTHING].index(hook) + 1]
    assert good.calls == EVERYTHING


@pytest.mark.parametrize("hook", HOOKS)
def test_a_tracker_that_hangs_is_left_behind_in_time(hook: str, gate: threading.Event) -> None:
    stuck, good, notices = Recorder(wait={hook: gate}), Recorder(), list[str]()
    panel = TrackerPanel(
        [("stuck", stuck), ("good", good)], INFO, notices.append, Silences(patience=0.2)
    )
    began = time.monotonic()
    assert live(panel) == ["stuck"]
    assert 0.2 <= time.monotonic() - began < 5
    assert [notice.split(" was ")[0] for notice in notices] == ["the tracker 'stuck'"]
    assert "left behind" in notices[0]
    assert good.calls == EVERYTHING


def test_the_timeout_is_for_all_trackers_together(gate: threading.Event) -> None:
    stuck = [(name, Recorder(wait={"log": gate})) for name in "abcdefgh"]
    panel = TrackerPanel(stuck, INFO, lambda notice: None, Silences(patience=1.0))
    began = time.monotonic()
    assert live(panel) == list("abcdefgh")
    assert time.monotonic() - began < 7


def test_a_slow_tracker_is_waited_for() -> None:
    class Slow(Recorder):
        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            time.sleep(0.05)
            super().log(step, metrics)

    slow, notices = Slow(), list[str]()
    assert live(TrackerPanel([("slow", slow)], INFO, notices.append)) == []
    assert slow.calls == EVERYTHING
    assert notices == []


def test_what_a_hung_tracker_cannot_take_is_dropped_without_waiting(gate: threading.Event) -> None:
    stuck, notices = Recorder(wait={"start": gate}), list[str]()
    panel = TrackerPanel(
        [("stuck", stuck)], INFO, notices.append, Silences(patience=60.0), capacity=10
    )
    panel.start()
    began = time.monotonic()
    for step in range(1, 1001):
        panel.log(step, {"train/all/loss": 1.0})
    assert time.monotonic() - began < 5
    assert len(notices) == 1
    assert "'stuck' does not keep up: 10 calls wait" in notices[0]

    gate.set()  # it wakes up after all: it gets what was queued, and its end
    assert panel.finish("ok", {}) == []
    got = [call for call in stuck.calls if call[0] == "log"]
    assert [step for _, step, _ in got] == list(range(1, len(got) + 1))
    assert len(got) in (10, 11)  # "start" may still have been in the queue
    assert stuck.calls[-1][0] == "finish"
    assert notices[1:] == [f"the tracker 'stuck' missed {1000 - len(got)} calls"]


def test_notices_come_from_the_callers_thread_and_as_soon_as_it_calls_again() -> None:
    threads, notices = set[int](), list[str]()

    def log(notice: str) -> None:
        threads.add(threading.get_ident())
        notices.append(notice)

    bad = Recorder({"start": ValueError("no")})
    panel = TrackerPanel([("bad", bad)], INFO, log)
    panel.start()
    while not notices:
        panel.log(1, {})
    panel.finish("ok", {})
    assert threads == {threading.get_ident()}
    assert len(notices) == 1


def test_a_tracker_keeps_the_metrics_that_it_was_given(gate: threading.Event) -> None:
    stuck = Recorder(wait={"start": gate})
    panel = TrackerPanel([("stuck", stuck)], INFO, lambda notice: None)
    panel.start()
    metrics = {"train/all/loss": 1.0}
    panel.log(1, metrics)
    metrics.clear()
    gate.set()
    panel.finish("ok", {})
    assert stuck.calls[1] == ("log", 1, {"train/all/loss": 1.0})


def test_a_run_that_fails_before_its_trackers_start_can_finish() -> None:
    tracker = Recorder()
    assert TrackerPanel([("t", tracker)], INFO, print).finish("error", {}) == []
    assert tracker.calls == []
    assert TrackerPanel([], INFO, print).finish("ok", {}) == []


def test_a_process_ends_although_a_tracker_hangs() -> None:
    program = textwrap.dedent(
        """
        import sys, threading
        from pathlib import Path
        from altgrad_core.execution.silence import Silences
        from altgrad_core.execution.tracking import TrackerPanel
        from altgrad_core.interfaces.tracker import RunInfo, Tracker

        class Stuck(Tracker):
            def log(self, step, metrics):
                threading.Event().wait()

        info = RunInfo("id", "suite", "condition", 1, Path(), {})
        panel = TrackerPanel([("stuck", Stuck())], info, print, Silences(patience=0.1))
        panel.start()
        panel.log(1, {})
        print(panel.finish("ok", {}))
        sys.exit(7)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.splitlines()[-1] == "['stuck']"


# The conformance check must catch what it is there for.


class Hangs(Tracker):
    def finish(self, status: str, summary: Mapping[str, float]) -> None:
        time.sleep(5)


class WantsFiniteNumbers(Tracker):
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for value in metrics.values():
            int(value)


class WantsANewDirectory(Tracker):
    def start(self, run: RunInfo) -> None:
        (run.directory / "mine").mkdir()


@pytest.mark.parametrize(
    ("tracker", "words"),
    [
        (Hangs(), "still busy 0.2 s after"),
        (WantsFiniteNumbers(), "failed in log"),
        (WantsANewDirectory(), "failed in start"),
        (object(), "not a Tracker"),
    ],
)
def test_the_conformance_check_finds_bad_trackers(tracker: Any, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_tracker(tracker, timeout=0.2)


def test_the_conformance_check_passes_good_trackers() -> None:
    check_tracker(Tracker())


class Asked(Tracker):
    """Answers as it is told to whether it can work."""

    def __init__(self, error: BaseException | None = None, gate: threading.Event | None = None):
        self.error, self.gate = error, gate

    def ready(self) -> None:
        if self.gate is not None:
            self.gate.wait()
        if self.error is not None:
            raise self.error


def test_a_tracker_that_the_user_must_put_right_stops_everything() -> None:
    said: list[str] = []
    with pytest.raises(UserError, match="the tracker 'b' cannot work: no login"):
        ask_trackers([("a", Asked()), ("b", Asked(UserError("no login")))], said.append)
    assert said == []


@pytest.mark.parametrize("error", [OSError("no network"), SystemExit("no network")])
def test_what_else_goes_wrong_with_a_tracker_is_said(error: BaseException) -> None:
    said: list[str] = []
    ask_trackers([("bad", Asked(error)), ("plain", Tracker())], said.append)
    assert said == [f"the tracker 'bad' may not work: {type(error).__name__}: no network"]


def test_a_tracker_that_does_not_answer_is_not_waited_for(gate: threading.Event) -> None:
    said: list[str] = []
    ask_trackers([("slow", Asked(gate=gate))], said.append, Silences(patience=0.1))
    assert said == ["the tracker 'slow' did not say within 0.1 s whether it can work"]


def test_the_conformance_check_asks_whether_it_is_ready() -> None:
    with pytest.raises(AssertionError, match="not ready: no login"):
        check_tracker(Asked(UserError("no login")))


def test_what_a_tracker_says_of_its_failure_is_cut() -> None:
    bad = Recorder({"start": ValueError("\x1b[31m" + "x" * 10_000_000)})
    panel = TrackerPanel([("bad", bad)], INFO, lambda notice: None)
    live(panel)
    (said,) = panel.said
    assert "switched off: ValueError: xxx" in said
    assert len(said) < 3000


def test_who_does_not_answer_is_waited_for_once_and_not_run_by_run(
    gate: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "_BRIEF_SECONDS", 0.05)
    known = Silences(tmp_path, patience=0.5)

    def seconds(tracker: Tracker) -> float:
        panel = TrackerPanel([("it", tracker)], INFO, lambda notice: None, Silences(tmp_path, 0.5))
        panel.start()
        begin = time.monotonic()
        panel.finish("ok", {})
        return time.monotonic() - begin

    assert seconds(Recorder(wait={"finish": gate})) >= 0.5
    assert known.patience("it") == 0.05
    assert known.patience("another") == 0.5
    assert seconds(Recorder(wait={"finish": gate})) < 0.45
    seconds(Recorder())  # it answers again
    assert known.patience("it") == 0.5
    ask_trackers([("it", Asked(gate=gate))], lambda text: None, Silences(tmp_path, 0.1))
    assert known.patience("it") == 0.05
    long_ago = time.time() - 7200
    os.utime(next(tmp_path.glob(".no-answer-from-it")), (long_ago, long_ago))
    assert known.patience("it") == 0.5
