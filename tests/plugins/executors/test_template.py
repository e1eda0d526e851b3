"""Jobs that are forked from a template: the same processes as fresh ones, and never a copy that is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import gone

from altgrad_core.interfaces.executor import Exit, Job
from altgrad_core.interfaces.plugin import NoSettings
from altgrad_plugins.executors.local import FreshExecutor, LocalExecutor

FACTS = r"""
import atexit, json, os, random, signal, sys, threading
import numpy
import heavy
numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE]
facts = {
    "name": __name__, "argv": sys.argv[1:], "path": sys.path, "folder": os.getcwd(),
    "main": sys.modules["__main__"].__dict__ is globals(), "again": "job" in sys.modules,
    "signals": [str(signal.getsignal(n)) for n in numbers],
    "stdin": sys.stdin.read(), "encodings": [sys.stdout.encoding, sys.stdout.errors],
    "mark": os.environ["MARK"], "leads": os.getpid() == os.getpgrp() == os.getsid(0),
    "descriptors": len(os.listdir("/proc/self/fd")),
}
own = {"heavy": heavy.pid, "pid": os.getpid(), "parent": os.getppid(),
       "draws": [random.random(), numpy.random.random()],
       "shown": os.fsdecode(open("/proc/self/cmdline", "rb").read().rstrip(b"\0")).split("\0")}
print(json.dumps([facts, own]), flush=True)
atexit.register(print, "the end")
threading.Timer(0.2, print, ["a thread's last word"]).start()
"""
HEAVY = "import os; pid = os.getpid(); print('heavy is here')\n"

pytestmark = pytest.mark.usefixtures("signals")

Make = Callable[..., Job]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """``make(name, program)``: a job that runs the program as the module ``job``."""

    def make(
        name: str, program: str, *arguments: str, preload: tuple[str, ...] = ("heavy",), **more: str
    ) -> Job:
        code = tmp_path / "code"
        code.mkdir(exist_ok=True)
        (code / f"job_{name}.py").write_text(program)
        (code / "heavy.py").write_text(more.pop("heavy", HEAVY))
        (tmp_path / name).mkdir()
        environment = {"PYTHONPATH": str(code), "MARK": "\udcff", **more}
        command = (sys.executable, "-P", "-m", f"job_{name}", *arguments)
        return Job(name, name, tmp_path / name, command, environment, preload)

    return make


def execute(
    executor: LocalExecutor,
    *jobs: Job,
    timeout: float | None = None,
    tick: Callable[[], None] = lambda: None,
) -> list[Exit]:
    ends: dict[str, Exit] = {}
    executor.execute(
        jobs,
        workers=2,
        timeout=timeout,
        started=lambda job: None,
        finished=lambda job, end: ends.update({job.run_id: end}),
        tick=tick,
    )
    return [ends[job.run_id] for job in jobs]


@pytest.fixture
def local() -> Any:
    executor = LocalExecutor(NoSettings())
    yield executor
    executor.close()


def log_of(job: Job) -> str:
    return (job.directory / "log.txt").read_text()


def told(job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    facts, own = json.loads(next(line for line in log_of(job).splitlines() if line[0] == "["))
    return facts, own


def test_a_forked_process_is_as_one_that_was_started_afresh(make: Make, local: Any) -> None:
    arguments = ("--name", "ünï code\udcff", "")
    jobs = [make(name, FACTS, *arguments) for name in ("first", "second", "plain")]
    assert execute(local, *jobs[:2]) == [Exit(0), Exit(0)]
    assert execute(FreshExecutor(NoSettings()), jobs[2]) == [Exit(0)]
    (first, one), (second, two), (plain, fresh) = map(told, jobs)
    assert first == second == plain
    assert plain["leads"]
    for job, own in zip(jobs, (one, two, fresh), strict=True):
        said = log_of(job).splitlines()
        assert (said[0], *said[2:]) == ("heavy is here", "a thread's last word", "the end")
        assert own["shown"][:4] == [sys.executable, "-P", "-m", job.command[3]]
        assert "\0".join(own["shown"]).endswith("\0".join(arguments).rstrip("\0"))
    assert one["heavy"] == two["heavy"] == one["parent"] == two["parent"], "imported once"
    assert fresh["heavy"] == fresh["pid"]
    assert len({draw for own in (one, two, fresh) for draw in own["draws"]}) == 6


def test_every_end_is_reported(make: Make, local: Any) -> None:
    jobs = [
        make("exits", "import sys; sys.exit(3)"),
        make("says", "import sys; sys.exit('no such thing')"),
        make("raises", "raise ValueError('why')"),
        make("killed", "import os; os.kill(os.getpid(), 9)"),
        make("terminated", "import os; os.kill(os.getpid(), 15)"),
        make("interrupted", "import os, time; os.kill(os.getpid(), 2); time.sleep(9)"),
    ]
    assert [end.code for end in execute(local, *jobs)] == [3, 1, 1, -9, -15, -2]
    assert log_of(jobs[1]).endswith("no such thing\n")
    assert log_of(jobs[2]).endswith("ValueError: why\n")


WHO = "import os; print(os.getppid())"


def parent_of(job: Job) -> int:
    return int(log_of(job).split()[-1])


def test_a_module_that_cannot_be_imported_is_left_to_the_job(make: Make, local: Any) -> None:
    job = make("job", "import heavy", heavy="raise ImportError('not here')")
    assert execute(local, job) == [Exit(1)]
    assert log_of(job).endswith("ImportError: not here\n")


@pytest.mark.parametrize(
    "heavy",
    [
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        "import os\nif 'template' in open('/proc/self/cmdline').read(): os._exit(3)",
        "import os\nif 'template' in open('/proc/self/cmdline').read(): os.kill(os.getpid(), 9)",
    ],
    ids=["thread", "exit", "kill"],
)
def test_what_cannot_be_copied_is_started_afresh(make: Make, local: Any, heavy: str) -> None:
    jobs = [make("one", WHO, heavy=heavy), make("two", WHO, heavy=heavy)]
    later = make("later", WHO, heavy=heavy)
    assert execute(local, *jobs) == [Exit(0), Exit(0)]
    assert execute(local, later) == [Exit(0)]
    assert {parent_of(job) for job in (*jobs, later)} == {os.getpid()}


def test_an_accelerator_that_is_open_is_not_copied(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from altgrad_plugins.executors import template

    monkeypatch.setattr(template, "_one_thread", lambda: True)
    assert template._can_be_copied()
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(template, "_DEVICES", (str(tmp_path / "nvidia"),))
    with (tmp_path / "nvidiactl").open():
        assert not template._can_be_copied()
    assert template._can_be_copied()


def test_jobs_that_differ_in_surroundings_or_modules_share_nothing(make: Make, local: Any) -> None:
    jobs = [
        make("a", WHO),
        make("b", WHO),
        make("c", WHO, OMP_NUM_THREADS="3"),
        make("d", WHO, preload=("heavy", "json")),
        make("e", WHO, preload=()),
    ]
    assert execute(local, *jobs) == [Exit(0)] * 5
    a, b, c, d, e = map(parent_of, jobs)
    assert a == b
    assert e == os.getpid()
    assert len({a, c, d, e}) == 4


SLOW = "import os, time; print(os.getppid(), os.getpid(), flush=True); time.sleep(60)"


def pids_of(job: Job) -> list[int]:
    """Template and child, once the job has said them."""
    path = job.directory / "log.txt"
    said = path.read_text().split("\n") if path.exists() else []
    return [int(pid) for pid in said[-2].split()] if len(said) > 1 and said[-2][0].isdigit() else []


def test_a_template_that_is_killed_ends_its_children_and_is_replaced(
    make: Make, local: Any
) -> None:
    jobs = [make("one", SLOW), make("two", SLOW)]
    templates: set[int] = set()

    def kill() -> None:
        if not templates and all(map(pids_of, jobs)):
            templates.add(pids_of(jobs[0])[0])
            os.kill(pids_of(jobs[0])[0], signal.SIGKILL)

    assert execute(local, *jobs, tick=kill) == [Exit(-signal.SIGKILL)] * 2
    assert gone(*pids_of(jobs[0]), *pids_of(jobs[1]))
    last = make("last", WHO)
    assert execute(local, last) == [Exit(0)]
    assert parent_of(last) not in {os.getpid(), *templates}


@pytest.mark.slow
def test_a_template_that_stands_still_is_not_waited_for(make: Make, local: Any) -> None:
    job = make("slow", SLOW)

    stopped: list[int] = []

    def stop() -> None:
        if not stopped and pids_of(job):
            stopped.append(pids_of(job)[0])
            os.kill(stopped[0], signal.SIGSTOP)

    [end] = execute(local, job, timeout=2.5, tick=stop)
    assert stopped
    assert end.timed_out
    assert gone(*pids_of(job))


@pytest.mark.parametrize(
    ("program", "heavy"),
    [(SLOW, HEAVY), (WHO, "import time; time.sleep(60)")],
    ids=["job", "import"],
)
def test_time_runs_out(make: Make, local: Any, program: str, heavy: str) -> None:
    begin = time.monotonic()
    [end] = execute(local, make("slow", program, heavy=heavy), timeout=1.5)
    assert end.timed_out
    assert end.code == -signal.SIGTERM
    local.close()
    assert time.monotonic() - begin < 15


def test_an_interrupt_ends_the_children_and_leaves_the_template(make: Make, local: Any) -> None:
    job = make("slow", SLOW)

    def interrupt() -> None:
        if pids_of(job):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(local, job, tick=interrupt)
    template, child = pids_of(job)
    assert gone(child)
    after = make("after", WHO)
    assert execute(local, after) == [Exit(0)]
    assert parent_of(after) == template
    local.close()
    assert gone(template)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_launcher(make: Make, tmp_path: Path, number: int) -> None:
    inner = "import time; time.sleep(60)"
    program = (
        "import subprocess, sys\n"
        "from altgrad_core.execution.lifeline import watch_lifeline\nwatch_lifeline()\n"
        f"inner = subprocess.Popen([sys.executable, '-c', {inner!r}])\n"
        f"print(inner.pid)\n{SLOW}"
    )
    job = make("slow", program)
    launcher = (
        "import sys\nfrom pathlib import Path\n"
        "from altgrad_core.interfaces.executor import Job\n"
        "from altgrad_core.interfaces.plugin import NoSettings\n"
        "from altgrad_plugins.executors.local import LocalExecutor\n"
        f"job = Job('slow', 'slow', Path({str(job.directory)!r}), {job.command!r},\n"
        f"    {dict(job.environment)!r}, {job.preload!r})\n"
        "nothing = lambda *_: None\n"
        "LocalExecutor(NoSettings()).execute([job], workers=1, timeout=None, started=nothing,\n"
        "    finished=nothing, tick=nothing)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher])
    while not pids_of(job):
        assert process.poll() is None
        time.sleep(0.05)
    template, child = pids_of(job)
    process.send_signal(number)
    process.wait(30)
    assert gone(template, child, int(log_of(job).splitlines()[1]))
