"""The conformance check of executors passes ours and catches each planted fault by its name."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

import pytest

from altgrad_core.interfaces import Executor, Exit, Job, NoSettings
from altgrad_core.testing.executors import check_executor
from altgrad_plugins.executors.local import FreshExecutor, LocalExecutor


@pytest.mark.parametrize("kind", [LocalExecutor, FreshExecutor])
def test_ours_keep_the_contract(kind: type[LocalExecutor]) -> None:
    check_executor(kind(NoSettings()), timeout=2.0)


class Simple(Executor):
    """One job after the other; right but for the fault that is planted."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

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
        for job in jobs[:-1] if self.fault == "drops" else jobs:
            if self.fault != "unsaid":
                started(job)
            self.run(job, timeout, finished, tick)

    def run(self, job: Job, timeout: float | None, finished: Any, tick: Any) -> None:
        log = (
            subprocess.DEVNULL if self.fault == "silent" else (job.directory / "log.txt").open("w")
        )
        child = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=None if self.fault == "bare" else dict(job.environment),
        )
        timed_out, left = False, (timeout or 600) / 0.05
        while child.poll() is None:
            left -= 1
            if left < 0 and not timed_out:
                timed_out = True
                child.terminate()
            try:
                child.wait(0.05)
            except subprocess.TimeoutExpired:
                if self.fault != "mute":
                    self.tick(child, tick)
        end = Exit(0 if self.fault == "codes" else child.returncode, timed_out)
        if self.fault == "hides":
            end = Exit(child.returncode)
        if self.fault == "thread":
            caught: list[BaseException] = []

            def tell() -> None:
                try:
                    finished(job, end)
                except BaseException as error:
                    caught.append(error)

            thread = Thread(target=tell)
            thread.start()
            thread.join()
            raise caught[0]
        finished(job, end)

    def tick(self, child: subprocess.Popen[bytes], tick: Any) -> None:
        try:
            tick()
        except KeyboardInterrupt:
            if self.fault != "orphan":
                child.kill()
                child.wait()
            if self.fault != "swallows":
                raise


def test_a_simple_one_is_right() -> None:
    check_executor(Simple(""), timeout=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("drops", "the job last was never finished"),
        ("unsaid", "finished without having been started"),
        ("silent", "log.txt of the job fails must hold"),
        ("bare", "log.txt of the job fails must hold"),
        ("codes", "the job fails ended with 3, not 0"),
        ("hides", "did not run out of time"),
        ("thread", "from the thread that called"),
        ("mute", r"tick\(\) was called 0 times"),
        ("orphan", "a child was still running"),
        ("swallows", "must go on to the caller"),
    ],
)
def test_each_fault_is_named(fault: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_executor(Simple(fault), timeout=1.0)


def test_what_is_no_executor_is_said() -> None:
    with pytest.raises(AssertionError, match="is not an Executor"):
        check_executor(object())  # type: ignore[arg-type]
