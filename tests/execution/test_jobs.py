"""How runs end that are interrupted, finished elsewhere, or in another suite's hands."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.execution.interruption import Interrupted
from altgrad_core.execution.jobs import Ended, Policy, run_jobs
from altgrad_core.execution.outcome import HELD
from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.locks.lock import run_lock
from altgrad_core.results.run_directory import RunDirectory, Status, StatusName

pytestmark = pytest.mark.usefixtures("signals")

GO_ON = Policy()


class Scripted(Executor):
    """Each job does what its script says; an interrupt goes through, as with children that are ended."""

    def __init__(self, scripts: dict[str, list[Callable[[], int]]]) -> None:
        self.scripts = scripts

    def execute(
        self,
        jobs: Sequence[Job],
        *,
        workers: int,
        timeout: float | None,
        started: Callable[[Job], None],
        finished: Callable[[Job, Exit], None],
        tick: Callable[[], None],
    ) -> None:
        for job in jobs:
            started(job)
            code = self.scripts[job.run_id].pop(0)()
            tick()
            finished(job, Exit(code))


class Audience:
    """Remembers how runs were said to end."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []
        self.starts: list[str] = []
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def begin(self, total: int, done: int) -> None: ...

    def started(self, job: Job, max_steps: int) -> None:
        self.starts.append(job.run_id)

    def progress(self, job: Job, status: Status) -> None: ...

    def tried_again(self, job: Any, status: Any, how: str) -> None:
        self.message(f"{job.label}: {status.status} ({status.message}); {how}")

    def finished(self, job: Job, status: Status) -> None:
        self.ends.append((job.run_id, status.status))


class Stage:
    """Runs ``a`` and ``b`` in folders of their own."""

    def __init__(self, folder: Path) -> None:
        self.directories = {name: RunDirectory(folder / name) for name in ("a", "b")}
        for directory in self.directories.values():
            directory.checkpoint.parent.mkdir(parents=True)
        self.audience = Audience()

    def says(self, name: str, status: StatusName, code: int = 0) -> Callable[[], int]:
        """A worker that writes this status and ends with this code."""

        def work() -> int:
            self.directories[name].write_status(Status(status=status, step=5))
            return code

        return work

    def run(self, policy: Policy = GO_ON, **scripts: Any) -> Ended:
        jobs = [Job(n, n, self.directories[n].path, ("true",)) for n in scripts]
        steps = dict.fromkeys(scripts, 10)
        return run_jobs(
            Scripted({n: list(s) for n, s in scripts.items()}),
            jobs,
            self.directories,
            steps,
            self.audience,
            workers=1,
            timeout=None,
            policy=policy,
            reopen=lambda name: self.directories[name].checkpoint.parent.mkdir(
                parents=True, exist_ok=True
            ),
        )

    def status(self, name: str) -> tuple[str, str]:
        found = self.directories[name].status()
        return found.status, found.message


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def interrupted(number: signal.Signals, work: Callable[[], int]) -> Callable[[], int]:
    def both() -> int:
        code = work()
        os.kill(os.getpid(), number)
        return code

    return both


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGINT, "interrupted by the user"),
        (signal.SIGTERM, "interrupted by SIGTERM"),
        (signal.SIGHUP, "interrupted by SIGHUP"),
    ],
)
def test_every_signal_leaves_a_status_and_keeps_what_is_queued(
    stage: Stage, number: signal.Signals, words: str
) -> None:
    with pytest.raises(Interrupted):
        stage.run(a=[interrupted(number, stage.says("a", "running"))], b=[])
    assert stage.status("a") == ("killed", words)
    assert stage.directories["a"].status().step == 5
    assert stage.status("b") == ("pending", "")


def test_finished_is_finished(stage: Stage) -> None:
    """An interrupt while a tracker still uploads takes nothing back."""
    stage.directories["a"].checkpoint.write_bytes(b"no longer needed")
    with pytest.raises(Interrupted):
        stage.run(a=[interrupted(signal.SIGINT, stage.says("a", "ok"))])
    assert stage.status("a") == ("ok", "")
    assert not stage.directories["a"].checkpoint.exists()


def test_any_other_end_of_the_suite_leaves_a_status_as_well(stage: Stage) -> None:
    def breaks() -> int:
        stage.says("a", "running")()
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="gone"):
        stage.run(a=[breaks])
    assert stage.status("a") == (
        "killed",
        "the suite ended with OSError: the terminal is gone",
    )


def test_a_run_in_other_hands_is_waited_for_and_its_status_left_alone(stage: Stage) -> None:
    directory = stage.directories["a"]
    held, end = threading.Event(), threading.Event()

    def other_suite() -> None:
        with run_lock(directory.lock):
            directory.write_status(Status(status="running", step=3))
            held.set()
            end.wait(30)
            directory.write_status(Status(status="diverged", step=10))

    other = threading.Thread(target=other_suite)
    other.start()
    assert held.wait(30)

    def last() -> int:  # by now the first was left alone
        assert stage.status("a") == ("running", "")
        end.set()
        return stage.says("b", "ok")()

    assert stage.run(a=[lambda: HELD], b=[last]).mistakes == []
    other.join()
    assert stage.status("a") == ("diverged", "")
    assert sorted(stage.audience.ends) == [("a", "diverged"), ("b", "ok")]


def test_what_others_leave_without_a_result_is_run_here(stage: Stage) -> None:
    stage.directories["a"].write_status(Status(status="killed", step=3))
    stage.run(a=[lambda: HELD, stage.says("a", "ok")])
    assert stage.status("a") == ("ok", "")
    assert stage.audience.starts == ["a"]
    assert stage.audience.ends == [("a", "ok")]


def test_a_process_that_always_says_held_is_not_believed_for_ever(stage: Stage) -> None:
    begin = time.monotonic()
    stage.run(a=[lambda: HELD] * 20)
    assert time.monotonic() - begin < 30
    assert stage.status("a")[0] == "error"


def test_an_end_is_not_written_over_a_run_that_another_process_took_up(stage: Stage) -> None:
    """Its worker was killed, and another suite's took it up before this one heard of it."""
    directory = stage.directories["a"]
    took, leave = threading.Event(), threading.Event()

    def other_suite() -> None:
        with run_lock(directory.lock):
            directory.write_status(Status(status="running", step=7))
            took.set()
            leave.wait(30)
            directory.write_status(Status(status="diverged", step=10))

    other = threading.Thread(target=other_suite)

    def killed() -> int:
        other.start()
        assert took.wait(30)
        threading.Timer(2.0, leave.set).start()
        return -9

    stage.run(a=[killed])
    other.join()
    assert stage.audience.ends == [("a", "diverged")]


def gone(directory: RunDirectory) -> Callable[[], int]:
    """A colleague cleans up."""

    def work() -> int:
        shutil.rmtree(directory.path)
        return 1

    return work


def test_a_run_directory_that_is_deleted_in_the_middle_ends_no_other_run(stage: Stage) -> None:
    ended = stage.run(a=[gone(stage.directories["a"])], b=[stage.says("b", "ok")])
    assert stage.audience.ends == [("a", "error"), ("b", "ok")]
    assert "its status cannot be written" in ended.statuses["a"].message
    assert ended.statuses["b"].status == "ok"


def test_a_deleted_run_is_made_again_where_it_is_tried_again(stage: Stage) -> None:
    ended = stage.run(
        Policy(retries=1),
        a=[gone(stage.directories["a"]), stage.says("a", "ok")],
        b=[stage.says("b", "ok")],
    )
    assert {name: one.status for name, one in ended.statuses.items()} == {"a": "ok", "b": "ok"}


def test_what_has_its_result_is_not_waited_for_whoever_holds_its_lock(stage: Stage) -> None:
    with run_lock(stage.directories["a"].lock):
        ended = stage.run(a=[stage.says("a", "ok", -9)], b=[lambda: HELD, stage.says("b", "ok")])
    assert ended.statuses["a"].status == "ok"


@pytest.mark.parametrize(
    ("status", "code", "tries"),
    [
        ("error", 1, 3),
        ("oom", 1, 3),
        ("running", -9, 3),
        ("diverged", 0, 1),  # a result
        ("error", 2, 1),  # its user's mistake: it would be the same again
    ],
)
def test_failures_are_tried_again_and_nothing_else(
    stage: Stage, status: StatusName, code: int, tries: int
) -> None:
    scripts = [stage.says("a", status, code)] * 9
    stage.run(Policy(retries=2), a=scripts, b=[stage.says("b", "ok")])
    assert len(stage.audience.lines) == tries - 1
    assert stage.audience.starts == ["a", "b"]
    assert [name for name, _ in stage.audience.ends] == (["a", "b"] if tries == 1 else ["b", "a"])


def test_a_retry_that_succeeds_is_a_success(stage: Stage) -> None:
    ended = stage.run(Policy(retries=5), a=[stage.says("a", "error", 1), stage.says("a", "ok")])
    assert stage.audience.ends == [("a", "ok")]
    assert ended.mistakes == []


def test_fail_fast_ends_the_suite_with_the_first_failure_after_its_retries(stage: Stage) -> None:
    failing = [stage.says("a", "error", 1), stage.says("a", "error", 1)]
    stage.run(Policy(retries=1, fail_fast=True), a=failing, b=[stage.says("b", "ok")])
    assert stage.audience.ends == [("b", "ok"), ("a", "error")]


def test_fail_fast_leaves_a_status_to_what_it_ends_and_begins_nothing_more(stage: Stage) -> None:
    stage.directories["c"] = RunDirectory(stage.directories["a"].path.with_name("c"))
    stage.directories["c"].checkpoint.parent.mkdir(parents=True)
    under_way = [stage.says("b", "running")]
    ended = stage.run(Policy(fail_fast=True), a=[stage.says("a", "oom", 1)], b=under_way, c=[])
    assert stage.audience.ends == [("a", "oom")]
    assert ended.statuses.keys() == {"a"}
    assert stage.status("b") == ("killed", "ended with the suite, since a failed (--fail-fast)")
    assert stage.status("c") == ("pending", "")
