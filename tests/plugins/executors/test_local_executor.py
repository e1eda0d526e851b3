"""The local executor: exit codes, signals, timeouts, output, and no orphans."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from altgrad_core.interfaces.executor import Exit, Job
from altgrad_core.interfaces.plugin import NoSettings
from altgrad_plugins.executors.local import LocalExecutor


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
    grandchild = int((tmp_path / "slow" / "log.txt").read_text())
    for _ in range(50):
        if not alive(grandchild):
            break
        time.sleep(0.1)
    assert not alive(grandchild)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


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
