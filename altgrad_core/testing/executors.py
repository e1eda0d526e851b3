"""Conformance check for executors: :func:`check_executor`. Every plugin of any author passes it."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from altgrad_core.interfaces.executor import Executor, Exit, Job

_CODE = """
import os, signal, sys, time
from pathlib import Path
kind, mark = sys.argv[1], Path(sys.argv[2])
(mark / f"{os.getpid()}").touch()
print(f"job {kind}", os.environ.get("CHECK", "no environment"), sys.stdin.read() or "no input", flush=True)
if kind == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "sleeps":
    time.sleep(600)
sys.exit(3 if kind == "fails" else 0)
"""


def check_executor(executor: Executor, *, timeout: float = 5.0) -> None:
    """Raise ``AssertionError``, saying what is wrong, unless ``executor`` keeps its contract.

    It runs small Python jobs on this machine, some of which fail, are killed or never end, and checks that

    - every job is started and finished once, in that order, from the calling thread, though others fail;
    - exit codes, signals (negative) and the time limit (``timeout`` seconds) are told as they were;
    - output goes to ``log.txt``, the environment is added, and standard input is empty;
    - no more than ``workers`` run at once, and ``tick`` is called meanwhile;
    - on a ``KeyboardInterrupt`` from ``tick`` the children end, and the interrupt goes on.
    """
    if not isinstance(executor, Executor):
        raise AssertionError(f"{executor!r} is not an Executor")
    with tempfile.TemporaryDirectory() as name:
        try:
            _check_ends(executor, Path(name) / "ends", timeout)
            _check_interrupt(executor, Path(name) / "interrupt")
        finally:
            executor.close()


class _Watch:
    """What an executor said of its jobs."""

    def __init__(self, on_tick: Callable[[], None] = lambda: None) -> None:
        self.ends: dict[str, Exit] = {}
        self.running: set[str] = set()
        self.most = self.ticks = 0
        self._thread, self._on_tick = threading.get_ident(), on_tick

    def started(self, job: Job) -> None:
        self._here()
        if job.run_id in self.running or job.run_id in self.ends:
            raise AssertionError(f"the job {job.run_id} was started twice")
        self.running.add(job.run_id)
        self.most = max(self.most, len(self.running))

    def finished(self, job: Job, end: Exit) -> None:
        self._here()
        if job.run_id not in self.running:
            raise AssertionError(f"the job {job.run_id} was finished without having been started")
        self.running.remove(job.run_id)
        self.ends[job.run_id] = end

    def tick(self) -> None:
        self._here()
        self.ticks += 1
        self._on_tick()

    def _here(self) -> None:
        if threading.get_ident() != self._thread:
            raise AssertionError("callbacks must come from the thread that called execute()")


def _job(kind: str, folder: Path) -> Job:
    directory = folder / kind
    directory.mkdir(parents=True)
    command = (sys.executable, "-c", _CODE, kind, str(directory))
    return Job(kind, kind, directory, command, {"CHECK": f"environment of {kind}"})


def _run(
    executor: Executor, jobs: list[Job], watch: _Watch, workers: int, timeout: float | None
) -> None:
    executor.execute(
        jobs,
        workers=workers,
        timeout=timeout,
        started=watch.started,
        finished=watch.finished,
        tick=watch.tick,
    )


def _check_ends(executor: Executor, folder: Path, timeout: float) -> None:
    expected = {
        "fails": Exit(3),
        "works": Exit(0),
        "killed": Exit(-9),
        "sleeps": Exit(-15, timed_out=True),
        "last": Exit(0),
    }
    jobs, watch = [_job(kind, folder) for kind in expected], _Watch()
    _run(executor, jobs, watch, 2, timeout)
    for kind, end in expected.items():
        found = watch.ends.get(kind)
        if found is None:
            raise AssertionError(f"the job {kind} was never finished")
        if found.timed_out != end.timed_out:
            said = "ran out of time" if found.timed_out else "did not run out of time"
            raise AssertionError(f"of the job {kind} it was said that it {said}")
        if not end.timed_out and found.code != end.code:
            raise AssertionError(f"the job {kind} ended with {end.code}, not {found.code}")
        log = (
            (folder / kind / "log.txt").read_text() if (folder / kind / "log.txt").exists() else ""
        )
        if f"job {kind} environment of {kind} no input" not in log:
            raise AssertionError(
                f"log.txt of the job {kind} must hold what it printed, with the job's environment "
                f"and an empty standard input; it holds {log[:200]!r}"
            )
    if watch.most > 2:
        raise AssertionError(f"{watch.most} jobs ran at once, and workers was 2")
    if watch.ticks < timeout:
        raise AssertionError(f"tick() was called {watch.ticks} times in {timeout:g} seconds")


def _check_interrupt(executor: Executor, folder: Path) -> None:
    job = _job("sleeps", folder)

    asked = []

    def interrupt() -> None:
        if _processes(job.directory):
            asked.append(time.monotonic())
            raise KeyboardInterrupt

    watch = _Watch(interrupt)
    interrupted = False
    try:
        _run(executor, [job], watch, 1, None)
    except KeyboardInterrupt:
        interrupted = True
    if not interrupted:
        raise AssertionError("a KeyboardInterrupt from tick() must go on to the caller")
    if time.monotonic() - asked[0] > 300:  # it sleeps for 600 s, and no time limit ends it
        raise AssertionError("on a KeyboardInterrupt the children are ended, not waited out")
    for process in _processes(job.directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, 0)
            os.kill(process, 9)
            raise AssertionError("after a KeyboardInterrupt a child was still running")


def _processes(directory: Path) -> list[int]:
    return [int(path.name) for path in directory.iterdir() if path.name.isdigit()]
