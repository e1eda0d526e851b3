"""What an executor costs per cell: measured as it is, and simulated for many."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.testing.overhead import makespan, measure


class Sleeps(Executor):
    """Takes a tenth of a second for the first job, and a hundredth for each other."""

    code = 0

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
        assert workers == 1
        for number, job in enumerate(jobs):
            time.sleep(0.01 if number else 0.1)
            finished(job, Exit(self.code))


def test_the_first_job_is_told_apart_from_the_rest(tmp_path: Path) -> None:
    found = measure(Sleeps(), 5, tmp_path)
    assert found.first >= 0.1
    assert len(found.cells) == 4
    assert 0.01 <= min(found.cells) < 0.1
    assert "per cell median 0.0" in str(found)


def test_a_job_that_fails_is_no_measurement(tmp_path: Path) -> None:
    executor = Sleeps()
    executor.code = 3
    with pytest.raises(AssertionError, match=r"idle0: .*code=3"):
        measure(executor, 2, tmp_path)


def test_a_simulated_suite_takes_what_its_parts_take() -> None:
    took, least = makespan(400, 1, seconds=60.0, overhead=(2.0,), first=30.0)
    assert took == pytest.approx(least + 400 * 2.0 + 30.0)
    many, least = makespan(10_000, 100, seconds=600.0, overhead=(0.0,), first=0.0)
    assert least < many < 1.1 * least
    batches, least = makespan(400, 1, seconds=60.0, overhead=(2.0,), first=30.0, batch=10)
    assert batches == pytest.approx(least + 400 * 2.0 + 40 * 30.0)
