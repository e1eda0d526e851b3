"""The local executor: exit codes, signals, timeouts, output, and no orphans."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import alive, gone

from altgrad_core.interfaces.executor import Exit, Job
from altgrad_core.interfaces.plugin import NoSettings
from altgrad_plugins.executors.local import LocalExecutor

pytestmark = pytest.mark.usefixtures("signals")


def job(folder: Path, name: str, code: str) -> Job:
    (folder / name).mkdir()
    return Job(name, name, folder / name, (sys.executable, "-c", code), {"MARK": name})


def execute(
    jobs: Sequence[Job], workers: int = 2, timeout: float | None = None
) -> tuple[dict[str, Exit], int]:
    ends: dict[str, Exit] = {}
    running: set[str] = set()
    most = 0

    def started(started_job: Job) -> None:
        nonlocal most
        running.add(started_job.run_id)
        most = max(most, len(running))

    def finished(finished_job: Job, end: Exit) -> None:
        running.discard(finished_job.run_id)
        ends[finished_job.run_id] = end

    LocalExecutor(NoSettings()).execute(
        jobs,
        workers=workers,
        timeout=timeout,
        started=started,
        finished=finished,
        tick=lambda: None,
    )
    return ends, most


def test_every_end_is_reported_and_stops_no_other(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, "fails", "import sys; sys.exit(3)"),
        job(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"),
        job(tmp_path, "fine", "import os; print('hello from', os.environ['MARK'])"),
    ]
    ends, most = execute(jobs)
    assert ends == {"fails": Exit(3), "killed": Exit(-signal.SIGKILL), "fine": Exit(0)}
    assert most == 2
    assert "hello from fine" in (tmp_path / "fine" / "log.txt").read_text()


def test_timeout_ends_the_whole_process_group(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    begin = time.monotonic()
    ends, _ = execute([job(tmp_path, "slow", code)], timeout=1.5)
    assert ends["slow"].timed_out
    assert time.monotonic() - begin < 30
    assert gone(int((tmp_path / "slow" / "log.txt").read_text()))


@pytest.mark.slow
def test_a_job_that_gives_no_sign_of_life_is_ended_and_one_that_does_is_not(tmp_path: Path) -> None:
    """Stopped, it cannot even say so itself. Clocks that are set back are no silence."""
    stopped = job(tmp_path, "stopped", "import os; os.kill(os.getpid(), 19)")
    alive = job(
        tmp_path,
        "alive",
        "import os, time\n"
        "for n in range(12): print(n, flush=True); os.utime('/dev/stdout', (9 - n,) * 2); time.sleep(0.25)",
    )
    jobs = [
        replace(one, stall_timeout=1.0, signs=(one.directory / "log.txt", one.directory / "none"))
        for one in (stopped, alive)
    ]
    ends, _ = execute(jobs)
    assert ends["stopped"].stalled
    assert not ends["stopped"].timed_out
    assert ends["alive"] == Exit(0), (tmp_path / "alive" / "log.txt").read_text()


def test_a_job_whose_folder_is_gone_ends_no_other(tmp_path: Path) -> None:
    jobs = [job(tmp_path, name, "pass") for name in ("gone", "fine")]
    jobs.append(replace(jobs[0], command=(sys.executable, "-P", "-m", "this"), preload=("json",)))
    (tmp_path / "gone").rmdir()
    ends, _ = execute(jobs)
    assert ends["fine"] == Exit(0)
    assert "no process could be started for it" in ends["gone"].failed


@pytest.mark.slow
def test_what_a_child_started_ends_with_it_even_if_it_ignores_sigterm(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {stubborn!r}])\n"
        "time.sleep(0.5); print(child.pid, flush=True); time.sleep(60)"
    )
    execute([job(tmp_path, "slow", code)], timeout=2.5)
    assert gone(int((tmp_path / "slow" / "log.txt").read_text()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_no_child_outlives_the_executors_process(tmp_path: Path, number: signal.Signals) -> None:
    """Not even where that is killed outright, and the child and its own child wait for ever."""
    (tmp_path / "run").mkdir()
    child = (
        "import os, subprocess, sys, time\n"
        "from altgrad_core.execution.lifeline import watch_lifeline\n"
        "watch_lifeline()\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(os.getpid(), inner.pid, flush=True); time.sleep(60)"
    )
    parent = (
        "import sys\n"
        "from pathlib import Path\n"
        "from altgrad_core.interfaces.executor import Job\n"
        "from altgrad_core.interfaces.plugin import NoSettings\n"
        "from altgrad_plugins.executors.local import LocalExecutor\n"
        f"job = Job('run', 'run', Path({str(tmp_path / 'run')!r}), (sys.executable, '-c', {child!r}))\n"
        "nothing = lambda *_: None\n"
        "LocalExecutor(NoSettings()).execute([job], workers=1, timeout=None, started=nothing,\n"
        "    finished=nothing, tick=nothing)\n"
    )
    launcher = subprocess.Popen([sys.executable, "-c", parent])
    log = tmp_path / "run" / "log.txt"
    while not (log.exists() and log.read_text().endswith("\n")):
        assert launcher.poll() is None
        time.sleep(0.05)
    pids = [int(pid) for pid in log.read_text().split()]
    assert all(alive(pid) for pid in pids)
    launcher.send_signal(number)
    launcher.wait(30)
    assert gone(*pids)
    assert "is gone: ending" in log.read_text()


def test_an_interrupt_ends_the_children(tmp_path: Path) -> None:
    pids: list[int] = []
    log = tmp_path / "long" / "log.txt"

    def tick() -> None:
        if log.exists() and log.read_text().strip():
            pids.append(int(log.read_text()))
            raise KeyboardInterrupt

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        LocalExecutor(NoSettings()).execute(
            [job(tmp_path, "long", code)],
            workers=1,
            timeout=None,
            started=lambda _: None,
            finished=lambda *_: pytest.fail("not finished by itself"),
            tick=tick,
        )
    assert not alive(pids[0])
