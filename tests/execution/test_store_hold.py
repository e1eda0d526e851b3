"""A suite whose runs are kept on a store: machines that share it, and one that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import until
from warm_cli import FULL, Cli, Running, warm_cli

from altgrad_core.errors import UserError
from altgrad_core.execution import store_hold
from altgrad_core.execution.store_hold import StoreHold
from altgrad_core.results.remote.lease import StoreLock
from altgrad_core.results.remote.store import Store
from altgrad_core.results.run_directory import RunDirectory

MakeRun = Callable[..., RunDirectory]
Faults = Callable[..., None]
URL = "shelf://bucket/runs"


@pytest.fixture(scope="module")
def cli() -> Iterator[Cli]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent), prepend=os.pathsep)
        with warm_cli(preloaded=(*FULL, "quick_shelf")) as running:
            yield running


class Machines:
    """Machines that have nothing in common but the shelf."""

    def __init__(self, folder: Path, cli: Cli, suite: Path) -> None:
        self.folder, self._cli, self._suite = folder, cli, suite
        (folder / "shelf").mkdir()
        self.there = folder / "shelf" / "bucket" / "runs" / "tiny"

    def environment(self, name: str) -> dict[str, str]:
        cache = self.folder / name
        if not cache.exists():  # the data are the same everywhere
            shutil.copytree(self.folder / "cache", cache, symlinks=True)
        return {"ALTGRAD_CACHE": str(cache), "SHELF": str(self.folder / "shelf")}

    def start(self, name: str, *more: str, runs: str = "shelf://bucket/runs") -> Running:
        command = ["run", self._suite, "--runs", runs, "--no-report", *more]
        return self._cli.start(*command, environment=self.environment(name))

    def faults(self, **given: object) -> None:
        (self.folder / "shelf.json").write_text(json.dumps(given))

    def kill(self, name: str, launcher: Running) -> None:
        """All its processes at once, as when its power fails."""
        pattern = f"altgrad_core.execution.worker {self.folder / name}/"
        found = subprocess.run(
            ["pgrep", "-f", pattern], capture_output=True, text=True, check=False
        )
        for pid in (launcher.pid, *map(int, found.stdout.split())):
            os.kill(pid, signal.SIGKILL)


def _records(suite: Path) -> dict[str, list[str]]:
    found = {}
    for spec in sorted(suite.glob("*/spec.yaml")):
        directory = RunDirectory(spec.parent)
        assert directory.has_result(), (directory.status(), directory.damage())
        found[spec.parent.name] = [record.to_json() for record in directory.records()]
    return found


@pytest.fixture
def machines(
    write_suite: Callable[..., Path], tmp_path: Path, own_cache: Path, cli: Cli
) -> Machines:
    training = {"batch_size": 8, "learning_rate": 1e-3, "max_steps": 150}
    training |= {"eval_interval": 50, "log_interval": 5, "checkpoint_interval": 10}
    suite = write_suite(
        training=training,
        monitors=["flips"],
        matrix={"quantization.format": ["bf16", "e5m2"]},
        quantization={"residency": "grid", "rounding": "stochastic"},
    )
    return Machines(tmp_path, cli, suite)


@pytest.mark.slow
def test_two_machines_share_a_suite_one_is_killed_and_the_end_is_bit_identical(
    machines: Machines,
) -> None:
    peaceful = machines.start("cache", runs=str(machines.folder / "peace")).done()
    assert peaceful.returncode == 0, peaceful.stdout + peaceful.stderr
    machines.faults(fail_every=7)
    first = machines.start("first", "--workers", "1")
    sent = "*/checkpoint/00000002-*"
    until(lambda: list(machines.there.glob(sent)) or first.poll() is not None, 120)
    assert first.poll() is None, first.done()
    second = machines.start("second", "--workers", "1")
    machines.kill("first", first)
    said = second.done()
    assert said.returncode == 0, said.stdout + said.stderr
    assert _records(machines.there) == _records(machines.folder / "peace" / "tiny")
    logs = "".join(path.read_text() for path in machines.there.glob("*/log.txt"))
    assert "going on from the checkpoint of step" in logs
    third = machines.start("third").done()
    assert "2 runs, 2 finished earlier, 0 to go" in third.stdout
    assert not list(machines.there.glob("**/*held*"))
    plans = [json.loads(path.read_bytes()) for path in machines.folder.rglob("tiny/plan.json")]
    shared = [plan["declared"]["at"] for plan in plans if "shelf://" in plan["command"]]
    assert len(shared) == 4, "on the shelf and on each machine"
    assert len(set(shared)) == 1, "the second and the third saw what the first had declared"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    monkeypatch.setattr(store_hold, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(store_hold, "_POLL_SECONDS", 0.0)


def _begin(machine: Path, command: str = "") -> StoreHold:
    """A process that has taken its part in the suite."""
    hold = StoreHold(machine / "toy", URL, print)
    with hold.changing():
        if command:
            (machine / "toy" / "plan.json").write_text(
                json.dumps({"suite": "toy", "command": command})
            )
    return hold


@pytest.mark.usefixtures("hasty")
def test_who_joins_sees_the_plan_and_the_results_of_the_first(
    store: Store, make_run: MakeRun, tmp_path: Path, elsewhere: Callable[[str], None]
) -> None:
    elsewhere("a")
    run = make_run("one", 8, "ok")
    first = _begin(tmp_path / "one", "the first")
    with first.changing() as others:
        assert not others
    assert first.deliver() == {}
    elsewhere("b")
    second = StoreHold(tmp_path / "two" / "toy", URL, print)
    with second.changing() as others:
        assert others, "the first is still at it"
        assert json.loads((tmp_path / "two/toy/plan.json").read_bytes())["command"] == "the first"
        brought = RunDirectory(tmp_path / "two" / "toy" / run.path.name)
        assert brought.has_result()
        assert brought.metrics.read_bytes() == run.metrics.read_bytes()
    with first, second:
        pass
    assert [name for name in store.ls("toy") if "held" in name] == []


@pytest.mark.usefixtures("hasty")
def test_a_store_that_gives_no_answer_is_said_before_anything_is_run(
    on_shelf: Faults, tmp_path: Path
) -> None:
    on_shelf(gone=True)
    hold = StoreHold(tmp_path / "one" / "toy", URL, print)
    with pytest.raises(UserError, match="shelf://bucket/runs refuses"), hold.changing():
        pytest.fail("it was begun")
    assert hold.deliver() == {}


@pytest.mark.usefixtures("hasty")
def test_what_could_not_be_sent_is_told_and_sent_the_next_time(
    store: Store, on_shelf: Faults, make_run: MakeRun, tmp_path: Path
) -> None:
    with _begin(tmp_path / "one", "the first") as hold:
        run = make_run("one", 8, "ok")
        on_shelf(gone=True)
        left = hold.deliver()
    assert list(left) == [run.path.name]
    assert "the shelf has fallen down" in left[run.path.name]
    assert run.has_result()
    on_shelf()
    assert "status.json" not in store.ls(f"toy/{run.path.name}")
    with _begin(tmp_path / "one") as hold:
        assert hold.deliver() == {}
    with _begin(tmp_path / "two"):
        assert RunDirectory(tmp_path / "two" / "toy" / run.path.name).has_result()


@pytest.mark.usefixtures("hasty")
def test_a_result_that_was_cut_on_the_store_is_sent_again_by_who_has_it(
    store: Store, make_run: MakeRun, tmp_path: Path
) -> None:
    """Its status there is as it was: to run the suite again is what reports advise."""
    run = make_run("one", 8, "ok")
    with _begin(tmp_path / "one") as hold:
        assert hold.deliver() == {}
    whole, name = run.metrics.read_bytes(), f"toy/{run.path.name}/metrics.jsonl"
    store.write(name, whole[:9])
    run.metrics.write_bytes(whole[:5])
    with _begin(tmp_path / "one") as hold:
        assert hold.deliver() == {}
        assert store.read(name) == whole[:9], "what is damaged here, too, is not sent"
    run.metrics.write_bytes(whole)
    with _begin(tmp_path / "one") as hold:
        assert hold.deliver() == {}
        assert store.read(name) == whole


@pytest.mark.usefixtures("hasty")
def test_an_unfinished_run_of_another_time_is_not_sent_over_what_others_did(
    store: Store, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("one", 4)
    with _begin(tmp_path / "one") as hold:
        assert hold.deliver() == {}
        assert "status.json" not in store.ls(f"toy/{run.path.name}")
        hold.ended(run)  # its process was killed just now
        assert hold.deliver() == {}
    assert len(store.ls(f"toy/{run.path.name}/checkpoint")) == 1
    assert "status.json" in store.ls(f"toy/{run.path.name}")


@pytest.mark.usefixtures("hasty")
def test_a_run_in_other_hands_is_waited_for_as_long_as_they_live(
    store: Store, make_run: MakeRun, tmp_path: Path, elsewhere: Callable[[str], None]
) -> None:
    run = make_run("one", 4, "pending")
    with _begin(tmp_path / "one") as hold:
        elsewhere("a")
        other = StoreLock(store, f"toy/{run.path.name}")
        assert other.take()
        elsewhere("b")
        for _ in range(10):
            assert hold.is_running(run)
            time.sleep(0.05)
        other.give_back()
        assert not hold.is_running(run)


def test_a_run_that_another_has_ended_meanwhile_arrives(
    store: Store, make_run: MakeRun, tmp_path: Path, hasty: None
) -> None:
    from altgrad_core.results.remote.mirror import RunMirror

    run = make_run("one", 4, "pending")
    with _begin(tmp_path / "one") as hold:
        RunMirror(store, make_run("other", 8, "ok"), print).deliver()
        assert not hold.is_running(run)
        assert run.has_result()


IN_ONE_PROCESS = """
import sys
from altgrad_core import load_results, load_suite, plan_suite, run_suite
result = run_suite(plan_suite(load_suite(sys.argv[1])), runs="memory://in-process/runs")
found = load_results("memory://in-process/runs/tiny")
print(result.ok_as_asked, *found["status"], *found["directory"])
"""


def test_a_suite_leaves_its_runs_on_a_store_of_its_process(
    write_suite: Callable[..., Path], own_cache: Path, cli: Cli
) -> None:
    training = {"max_steps": 2, "eval_interval": 2, "batch_size": 8, "learning_rate": 1e-3}
    suite = write_suite(training=training, matrix={}, monitors=[])
    said = cli.run("-c", IN_ONE_PROCESS, suite)
    assert said.stdout.startswith("True ok memory://in-process/runs/tiny/"), said.stderr


ON_ANOTHER_DISK = """
import os, sys
from pathlib import Path
import altgrad_core.execution.runner as runner
from altgrad_core import load_suite, plan_suite, run_suite
from altgrad_core.interfaces.executor import Executor
from altgrad_core.results.remote.url import here
from altgrad_plugins.executors.node import portable, run_here

ours, theirs, aside = here("shelf://bucket/runs"), Path("theirs"), Path("aside")
theirs.mkdir()

class Elsewhere(Executor):
    '''A machine on whose disk lies nothing of ours under the same paths.'''

    def execute(self, jobs, *, workers, timeout, started, finished, tick):
        for job in jobs:
            started(job)
            ours.rename(aside)
            theirs.rename(ours)
            end = run_here(portable(job), folder=Path("/nowhere"), python=sys.executable, timeout=timeout)
            os.chdir(home)
            ours.rename(theirs)
            aside.rename(ours)
            finished(job, end)
            tick()

home = os.getcwd()
runner.catalog = lambda: type("", (), {"build": lambda *_: Elsewhere()})
result = run_suite(plan_suite(load_suite(sys.argv[1])), runs="shelf://bucket/runs")
print(result.ok_as_asked, *(status.status for status in result.statuses.values()))
"""


@pytest.mark.slow
def test_machines_that_share_no_disk_with_the_launcher_bring_and_send_by_themselves(
    write_suite: Callable[..., Path], own_cache: Path, cli: Cli, tmp_path: Path, on_shelf: Faults
) -> None:
    training = {"max_steps": 2, "eval_interval": 2, "batch_size": 8, "learning_rate": 1e-3}
    suite = write_suite(training=training, matrix={}, monitors=[])
    monitored = {"ALTGRAD_CACHE": str(own_cache)}
    said = cli.run("-c", ON_ANOTHER_DISK, suite, folder=tmp_path, environment=monitored)
    assert said.stdout == "True ok\n", said.stdout + said.stderr
    assert _records(tmp_path / "shelf" / "bucket" / "runs" / "tiny")
    assert list((tmp_path / "theirs").rglob("log.txt"))
    assert not list(own_cache.rglob("log.txt")), "it was made on the launcher's disk"


def test_a_store_that_is_gone_at_the_end_is_told_and_the_command_sends_what_is_kept(
    write_suite: Callable[..., Path], own_cache: Path, warm: Cli, on_shelf: Faults, tmp_path: Path
) -> None:
    training = {"max_steps": 2, "eval_interval": 2, "batch_size": 8, "learning_rate": 1e-3}
    suite = write_suite(training=training, matrix={}, monitors=[])
    with_a_shelf = "import quick_shelf; from altgrad_core.cli import main; main()"
    command = ["-c", with_a_shelf, "run", suite, "--runs", URL, "--no-report"]
    environment = {"ALTGRAD_CACHE": str(own_cache), "PYTHONPATH": str(Path(__file__).parents[1])}
    on_shelf(gone=True, only="status.json")
    said = warm.run(*command, environment=environment)
    assert said.returncode == 1, said.stdout + said.stderr
    assert "1 run is not at shelf://bucket/runs/tiny" in said.stdout
    assert f"by: altgrad-bench run {suite} --runs {URL} --no-report" in " ".join(
        said.stdout.split()
    )
    assert list(own_cache.rglob(".no-answer-from-runs' store")), "the next run waits less"
    on_shelf()
    said = warm.run(*command, environment=environment)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "1 run, 1 finished earlier" in said.stdout
    assert _records(tmp_path / "shelf" / "bucket" / "runs" / "tiny")
