"""The Slurm executor: on submitit's local processes, on a queue of our own making, and on Slurm itself.

The last where ``sinfo`` answers and ``ALTGRAD_SLURM`` is set, from a folder that the nodes see (``--basetemp``).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("submitit", reason="needs submitit: pip install 'altgrad-bench[slurm]'")

from altgrad_core.errors import UserError
from altgrad_core.interfaces.executor import Exit, Job
from altgrad_core.results.run_directory import RunDirectory
from altgrad_core.testing.executors import check_executor
from altgrad_plugins.executors import slurm
from altgrad_plugins.executors.array_task import ArrayTask, begun, ended, write
from altgrad_plugins.executors.settings import SlurmSettings
from altgrad_plugins.executors.slurm import SlurmExecutor
from altgrad_plugins.executors.slurm_queue import NEVER, Batch

on_slurm = pytest.mark.skipif(
    not (os.environ.get("ALTGRAD_SLURM") and shutil.which("sinfo")),
    reason="needs a Slurm cluster that answers, and ALTGRAD_SLURM=1",
)


def job(folder: Path, name: str, code: str = "pass") -> Job:
    (folder / name).mkdir(parents=True)
    return Job(name, name, folder / name, (sys.executable, "-c", code), {"MARK": name})


def execute(
    jobs: Sequence[Job],
    workers: int = 2,
    timeout: float | None = None,
    tick: Callable[[], None] = lambda: None,
    **settings: Any,
) -> tuple[dict[str, Exit], list[str]]:
    ends: dict[str, Exit] = {}
    order: list[str] = []
    SlurmExecutor(SlurmSettings(**settings)).execute(
        jobs,
        workers=workers,
        timeout=timeout,
        started=lambda job: order.append(job.run_id),
        finished=lambda job, end: ends.update({job.run_id: end}),
        tick=tick,
    )
    assert sorted(order) == sorted(ends)
    return ends, order


def test_it_keeps_the_contract() -> None:
    check_executor(SlurmExecutor(SlurmSettings(cluster="local")), timeout=10.0)


def test_one_task_makes_several_runs_and_nothing_stays_behind(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getppid()); sys.exit(int(os.environ['MARK'][-1]))"
    jobs = [job(tmp_path, f"run{number}", code) for number in range(3)]
    ends, order = execute(jobs, workers=1, cluster="local", batch=3)
    assert ends == {f"run{number}": Exit(number) for number in range(3)}
    assert order == ["run0", "run1", "run2"]
    assert len({(one.directory / "log.txt").read_text() for one in jobs}) == 1
    assert list((tmp_path / "slurm").iterdir()) == []


def test_at_its_time_limit_a_run_is_asked_for_a_checkpoint_and_goes_on_when_queued_again(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from altgrad_core.execution.lifeline import watch_lifeline\n"
        "folder = Path(sys.argv[1]) / 'checkpoint'; folder.mkdir(exist_ok=True)\n"
        "print('begins', (folder / 'state').exists(), flush=True)\n"
        "watch_lifeline((folder / 'state').touch)\n"
        "time.sleep(0 if (folder / 'state').exists() else 600)\n"
    )
    one = job(tmp_path, "run")
    one = Job("run", "run", one.directory, (sys.executable, "-c", code, str(one.directory)))
    ends, _ = execute([one], cluster="local", time=1, notice=50)
    log = (one.directory / "log.txt").read_text()
    assert ends == {"run": Exit(0)}
    assert [line for line in log.splitlines() if "begins" in line] == [
        "begins False",
        "begins True",
    ]


def test_the_signal_of_the_time_limit_ends_no_run(tmp_path: Path) -> None:
    """Slurm sends it to every process of a task."""
    code = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print('goes on')"
    one = job(tmp_path, "run", code)
    ends, _ = execute([one], cluster="local")
    assert ends == {"run": Exit(0)}
    assert "goes on" in (one.directory / "log.txt").read_text()


class Fake:
    """A queue whose tasks are run by the tests."""

    outlives = True

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.arrays: list[tuple[list[list[str]], int]] = []
        self.limits: list[tuple[str, int]] = []
        self.cancelled: set[str] = set()
        self.on_submit: Callable[[ArrayTask, dict[str, Batch]], object] = lambda task, batches: None

    def submit(
        self, task: ArrayTask, batches: Sequence[Batch], folder: Path, limit: int
    ) -> list[str]:
        names = [f"{len(self.arrays)}_{number}" for number in range(len(batches))]
        self.arrays.append(([[job.run_id for job in batch] for batch in batches], limit))
        self.found |= dict.fromkeys(names, "PENDING")
        self.on_submit(task, dict(zip(names, batches, strict=True)))
        return names

    def states(self) -> dict[str, str]:
        return self.found

    def widen(self, task: str, limit: int) -> None:
        self.limits.append((task, limit))

    def cancel(self, tasks: Collection[str]) -> None:
        self.cancelled |= set(tasks)
        self.found |= dict.fromkeys(tasks, "CANCELLED")


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    fake = Fake()
    monkeypatch.setattr(slurm, "queue_of", lambda settings: fake)
    monkeypatch.setattr(slurm, "_LAG_SECONDS", 0.2)
    monkeypatch.setattr(slurm, "_END_SECONDS", 0.2)
    return fake


def over(task: ArrayTask, jobs: Batch) -> None:
    for one in jobs:
        begun(task.ends, one).touch()
        write(ended(task.ends, one), {"code": 0})


def test_arrays_follow_one_another_without_more_at_once_or_an_empty_place(
    queue: Fake, tmp_path: Path
) -> None:
    """Four places and arrays of three tasks: the second comes when two are left of the first."""
    known: list[tuple[ArrayTask, str, Batch]] = []
    queue.on_submit = lambda task, batches: known.extend((task, n, b) for n, b in batches.items())
    ends: list[str] = []
    lot = slurm._Lot(
        SlurmSettings(array=3, batch=2, poll=1e-9),
        queue,
        ArrayTask(tmp_path, sys.executable, None),
        4,
        lambda job: None,
        lambda job, end: ends.append(job.run_id),
    )
    names = [f"run{number}" for number in range(9)]
    lot.take([job(tmp_path, name) for name in names])
    first = ([names[0:2], names[2:4], names[4:6]], 4)
    second = ([names[6:8], names[8:9]], 2)
    for arrays, limits in [
        ([first], []),
        ([first, second], []),
        ([first, second], [("1_0", 3)]),
        ([first, second], [("1_0", 3), ("1_0", 4)]),
    ]:
        lot.submit()
        assert queue.arrays == arrays
        assert queue.limits == limits
        task, name, batch = known.pop(0)
        over(task, batch)
        queue.found[name] = "COMPLETED"
        lot.look()
    assert ends == names[:8]


def test_a_launcher_that_was_killed_leaves_its_tasks_to_the_next(
    queue: Fake, tmp_path: Path
) -> None:
    jobs = [job(tmp_path, f"run{number}") for number in range(2)]

    class Killed(BaseException): ...

    def kill() -> None:
        raise Killed

    queue.cancel = lambda tasks: None  # type: ignore[method-assign]  # it had no time to
    left: list[tuple[ArrayTask, dict[str, Batch]]] = []
    queue.on_submit = lambda task, batches: left.append((task, batches))
    with pytest.raises(Killed):
        execute(jobs, tick=kill, poll=0.1)
    # An interrupt takes the records away; a kill does not come so far.
    ((task, batches),) = left
    for name, (one,) in batches.items():
        write(tmp_path / "slurm" / f"{one.run_id}.json", {"task": name, "ends": str(task.ends)})
    del queue.found["0_1"]  # this one had ended without a result

    def tick() -> None:
        for task, batches in left:
            for name, batch in batches.items():
                if name in queue.found:
                    over(task, batch)
                    queue.found[name] = "COMPLETED"

    ends, _ = execute(jobs, tick=tick, poll=0.1)
    assert ends == {"run0": Exit(0), "run1": Exit(0)}
    assert [names for names, _ in queue.arrays] == [[["run0"], ["run1"]], [["run1"]]]


@pytest.mark.parametrize(
    ("state", "end"),
    [
        ("TIMEOUT", Exit(-15, timed_out=True)),
        ("CANCELLED", Exit(-15)),
        ("OUT_OF_MEMORY", Exit(-9)),
    ],
)
def test_a_task_that_slurm_ended_ends_its_run_and_no_other(
    queue: Fake, tmp_path: Path, state: str, end: Exit
) -> None:
    """The runs behind it in the same task are submitted again."""

    def run(task: ArrayTask, batches: dict[str, Batch]) -> None:
        for name, batch in batches.items():
            bad = batch[0].run_id == "run0"
            begun(task.ends, batch[0]).touch()
            over(task, [] if bad else batch)
            queue.found[name] = state if bad else "COMPLETED"

    queue.on_submit = run
    jobs = [job(tmp_path, f"run{number}") for number in range(3)]
    ends, _ = execute(jobs, batch=2, poll=0.1)
    assert ends == {"run0": end, "run1": Exit(0), "run2": Exit(0)}


def test_a_task_that_is_queued_again_with_nothing_left_to_do_is_taken_out(
    queue: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "_TIDY_SECONDS", 0.2)
    queue.on_submit = lambda task, batches: [over(task, batch) for batch in batches.values()]
    jobs = [job(tmp_path, "run")]
    ends, _ = execute(jobs, poll=0.1)
    assert ends == {"run": Exit(0)}
    assert queue.cancelled == {"0_0"}
    assert list((tmp_path / "slurm").iterdir()) == []
    (tmp_path / "ends").mkdir()
    task = ArrayTask(tmp_path, sys.executable, None, tmp_path / "ends")
    assert task.checkpoint(jobs) is not None
    over(task, jobs)
    assert task.checkpoint(jobs) is None


def test_a_task_that_is_gone_without_a_word_says_where_its_log_is(
    queue: Fake, tmp_path: Path
) -> None:
    queue.on_submit = lambda task, batches: queue.found.clear()
    ends, _ = execute([job(tmp_path, "run")], poll=0.1)
    assert "ended without saying how the run did (no longer known)" in ends["run"].failed
    (kept,) = (tmp_path / "slurm").iterdir()
    assert str(kept) in ends["run"].failed


def test_what_slurm_would_never_start_is_said_and_taken_back(queue: Fake, tmp_path: Path) -> None:
    queue.on_submit = lambda task, batches: queue.found.update({"0_0": f"{NEVER} (BadConstraints)"})
    with pytest.raises(UserError, match=r"would never start job 0_0: NEVER \(BadConstraints\)"):
        execute([job(tmp_path, "run")], poll=0.1)
    assert queue.cancelled == {"0_0"}


def test_without_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be submitted: Could not detect .srun"):
        execute([job(tmp_path, "run")])


@on_slurm
def test_it_keeps_the_contract_on_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    check_executor(SlurmExecutor(SlurmSettings(poll=1)), timeout=5.0)


@on_slurm
def test_what_slurm_refuses_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be submitted|would never start"):
        execute([job(tmp_path, "run")], cpus=4096)


@pytest.mark.timeout(3600)
@on_slurm
def test_a_suite_on_slurm_with_time_limits_and_a_killed_launcher_ends_as_one_left_in_peace(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    """No checkpoint is ever due by itself: what goes on goes on from the one that the time limit asked for."""
    path = write_suite(
        training={
            "batch_size": 4,
            "learning_rate": 1e-3,
            "max_steps": int(os.environ.get("ALTGRAD_SLURM_STEPS", "1400")),
            "eval_interval": 4000,
            "log_interval": 100,
            "checkpoint_interval": 10**6,
        },
        matrix={"quantization.format": ["e5m2"]},
        quantization={"residency": "grid", "rounding": "stochastic"},
        monitors=["flips"],
    )
    command = [sys.executable, "-m", "altgrad_core.cli", "run", str(path), "--no-report"]
    peace, war = tmp_path / "peace", tmp_path / "war"
    subprocess.run([*command, "--runs", str(peace)], check=True)
    (there,) = (RunDirectory(one.parent) for one in peace.glob("*/*/spec.yaml"))
    directory = RunDirectory(war / there.path.parent.name / there.path.name)
    record = directory.path.parent / "slurm" / f"{there.path.name}.json"
    command += ["--runs", str(war), "--executor", "slurm", "--executor-set", "time=2"]
    command += ["--executor-set", "notice=20", "--executor-set", "poll=1"]
    launcher = subprocess.Popen(command)
    while not (record.exists() and directory.status().status == "running"):
        assert launcher.poll() is None
        time.sleep(0.2)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    task = json.loads(record.read_text())["task"]
    again = subprocess.Popen(command)
    while again.poll() is None:
        if record.exists():
            assert json.loads(record.read_text())["task"] == task, "it was submitted twice"
        time.sleep(0.5)
    assert again.returncode == 0
    assert "going on from the checkpoint of step" in directory.log.read_text()
    assert records(directory) == records(there)


def records(directory: RunDirectory) -> list[str]:
    return [record.to_json() for record in directory.records()]
