"""What happens to a suite is told to its trackers, which can harm nothing by it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.api import run_suite
from altgrad_core.errors import UserError
from altgrad_core.execution import cells
from altgrad_core.execution.cells import SuiteResult
from altgrad_core.execution.interruption import Interrupted
from altgrad_core.execution.jobs import Ended
from altgrad_core.execution.notices import NoticeBoard, Noticing
from altgrad_core.interfaces.executor import Job
from altgrad_core.interfaces.notice import Notice
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite
from altgrad_core.results.run_directory import Status
from altgrad_plugins.trackers.notify import VARIABLE


class Audience:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seen: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def tried_again(self, job: Job, status: Status, how: str) -> None:
        self.seen.append(how)

    def finished(self, job: Job, status: Status) -> None:
        self.seen.append(status.status)


def board(tell: Any, say: Any = print, patience: float = 30.0) -> NoticeBoard:
    return NoticeBoard([("told", tell)], "tiny", Path("/runs/tiny"), say, patience)


def test_retries_failures_and_the_end_are_told_in_order() -> None:
    told: list[Notice] = []
    audience = Audience()
    job = Job("0123456789ab", "e5m2 seed 0", Path("/runs/tiny/0123456789ab"), ())
    with board(told.append) as one:
        seen = Noticing(one, audience)
        seen.message("passed on")
        seen.tried_again(job, Status(status="killed", message="by SIGKILL"), "retry 1 of 1")
        seen.finished(job, Status(status="oom", message="no memory"))
        seen.finished(job, Status(status="diverged"))
        one.ended(SuiteResult(Path(), {"a": Status(status="ok"), "b": Status(status="oom")}))
    kinds = ["suite_begins", "run_retried", "run_failed", "suite_ended"]
    assert [notice.kind for notice in told] == kinds
    assert told[1].text == "tiny: e5m2 seed 0: killed (by SIGKILL); retry 1 of 1"
    assert (told[2].run, told[2].label, told[2].status) == ("0123456789ab", "e5m2 seed 0", "oom")
    assert told[3].text == "tiny: ended, 1 ok, 1 oom"
    assert told[3].counts == {"ok": 1, "oom": 1}
    assert audience.lines == ["passed on"]
    assert audience.seen == ["retry 1 of 1", "oom", "diverged"]


def test_a_suite_that_is_interrupted_says_so() -> None:
    told: list[Notice] = []
    with pytest.raises(Interrupted), board(told.append):
        raise Interrupted(15)
    assert "ended early: " in told[-1].text
    assert "SIGTERM" in told[-1].text


def test_one_that_cannot_work_stops_the_suite_before_it_begins() -> None:
    def refuse(notice: Notice) -> None:
        raise UserError("no address")

    with (
        pytest.raises(UserError, match="the tracker 'told' cannot work: no address"),
        board(refuse),
    ):
        pytest.fail("it began")


def test_one_that_fails_or_hangs_costs_its_notices_and_is_said() -> None:
    lines: list[str] = []

    def fail(notice: Notice) -> None:
        raise (
            SystemExit(f"no {notice.kind}") if notice.kind != "suite_begins" else OSError("not yet")
        )

    with board(fail, lines.append) as one:
        one.tell("run_failed", "a run failed")
    assert lines == [
        "note: the tracker 'told' could not pass on a notice: OSError: not yet",
        "note: the tracker 'told' could not pass on a notice: SystemExit: no run_failed",
        "note: the tracker 'told' could not pass on a notice: SystemExit: no suite_ended",
    ]

    lines.clear()
    forever = threading.Event()
    with board(lambda one: one.kind == "suite_ended" and forever.wait(60), lines.append, 0.2):
        pass
    forever.set()
    assert lines == ["note: after 0.2 s not all notices had been passed on"]


def test_a_suite_that_asks_for_notices_has_them(
    write_suite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``ALTGRAD_NOTIFY`` of the one who starts it says; not in any file of the suite or its runs."""
    monkeypatch.setattr(cells, "run_jobs", lambda *_, **__: Ended())
    monkeypatch.setattr(cells, "prepare_data", lambda *_: "cpu")
    plan = plan_suite(load_suite(write_suite(trackers=["notify"])))
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(UserError, match=f"{VARIABLE} is not set"):
        run_suite(plan, runs=tmp_path / "runs")
    script = tmp_path / "tell.py"
    script.write_text("import sys\nopen(sys.argv[1], 'a').write(sys.argv[-1] + chr(10))")
    monkeypatch.setenv(VARIABLE, f"{sys.executable} {script} {tmp_path / 'told'}")
    run_suite(plan, runs=tmp_path / "runs")
    assert (tmp_path / "told").read_text() == "tiny: ended, 4 pending\n"
    for file in (tmp_path / "runs").rglob("*.*"):
        assert str(script) not in file.read_text()
