"""The Ray executor on a real cluster of several raylets on this machine, one of which is killed in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'altgrad-bench[ray]'")

from ray.cluster_utils import Cluster  # noqa: E402
from waiting import gone  # noqa: E402

from altgrad_core.api import run_suite  # noqa: E402
from altgrad_core.errors import UserError  # noqa: E402
from altgrad_core.interfaces.executor import Exit, Job  # noqa: E402
from altgrad_core.planning.planner import plan_suite  # noqa: E402
from altgrad_core.planning.suite import load_suite  # noqa: E402
from altgrad_core.results.run_directory import RunDirectory  # noqa: E402
from altgrad_core.testing.executors import check_executor  # noqa: E402
from altgrad_plugins.executors.ray_cluster import RayExecutor, refuse_unsatisfiable  # noqa: E402
from altgrad_plugins.executors.settings import RaySettings  # noqa: E402

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that runs nothing, and a node with one CPU."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    head = {**NODE, "num_cpus": 0, "include_dashboard": False}
    running = Cluster(initialize_head=True, head_node_args=head)
    running.node = running.add_node(**NODE)
    yield running
    ray.shutdown()
    running.shutdown()


@pytest.fixture
def executor(cluster: Any) -> Iterator[RayExecutor]:
    executor = RayExecutor(RaySettings(address=cluster.address))
    yield executor
    executor.close()


def job(folder: Path, name: str, code: str) -> Job:
    (folder / name).mkdir()
    return Job(name, name, folder / name, (sys.executable, "-c", code), {"MARK": name})


def execute(
    executor: RayExecutor, jobs: Sequence[Job], timeout: float | None = None, **more: Any
) -> dict[str, Exit]:
    ends: dict[str, Exit] = {}
    executor.execute(
        jobs,
        workers=2,
        timeout=timeout,
        started=lambda job: None,
        finished=lambda job, end: ends.update({job.run_id: end}),
        tick=more.get("tick", lambda: None),
    )
    return ends


def test_it_keeps_the_contract(executor: RayExecutor) -> None:
    check_executor(executor, timeout=2.0)


def test_time_limits_that_ray_lacks_and_a_folder_that_is_not_shared(
    executor: RayExecutor, tmp_path: Path
) -> None:
    silent = job(tmp_path, "silent", "import time; time.sleep(600)")
    silent = replace(silent, stall_timeout=1.0, signs=(silent.directory / "log.txt",))
    absent = job(tmp_path, "absent", "pass")
    absent.directory.rmdir()
    slow = job(tmp_path, "slow", "import time\nwhile True: print(1, flush=True); time.sleep(0.1)")
    ends = execute(executor, [silent, absent, slow], timeout=4.0)
    assert ends["silent"].stalled
    assert ends["slow"].timed_out
    assert "lie on storage that all machines share" in ends["absent"].failed


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"gpus": 4}, "asks for 1 cpus, 4 gpus, .* the most that a node has is 0 gpus"),
        ({"cpus": 64}, "the most that a node has is 1 cpus"),
        ({"resources": {"TPU": 1}}, "the most that a node has is 0 TPU"),
        ({"memory_gb": 1e5}, "the most that a node has is .* memory_gb"),
    ],
)
def test_what_no_node_has_is_refused_before_anything_runs(
    cluster: Any, tmp_path: Path, asked: dict[str, Any], told: str
) -> None:
    executor = RayExecutor(RaySettings(address=cluster.address, **asked))
    with pytest.raises(UserError, match=told):
        execute(executor, [job(tmp_path, "any", "pass")])
    executor.close()
    assert not (tmp_path / "any" / "log.txt").exists()


def test_what_two_nodes_have_together_is_not_what_one_has() -> None:
    nodes = [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 2.0}]
    refuse_unsatisfiable({"CPU": 1, "GPU": 0.5}, nodes)
    with pytest.raises(UserError, match="8 cpus, 2 gpus, not on one"):
        refuse_unsatisfiable({"CPU": 8, "GPU": 1}, nodes)


def test_no_cluster_is_said_at_once(tmp_path: Path) -> None:
    executor = RayExecutor(RaySettings(address="127.0.0.1:1"))
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"no Ray cluster can be reached at '127.0.0.1:1'"):
        execute(executor, [job(tmp_path, "any", "pass")])
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_run_outlives_its_launcher(cluster: Any, tmp_path: Path, number: signal.Signals) -> None:
    """Killed outright, or asked to end while it is connected: the run on the node ends with it."""
    (tmp_path / "run").mkdir()
    child = (
        "import os, time\n"
        "from altgrad_core.execution.lifeline import watch_lifeline\n"
        "watch_lifeline()\n"
        "print(os.getpid(), flush=True); time.sleep(600)"
    )
    parent = (
        "import sys\n"
        "from pathlib import Path\n"
        "from altgrad_core.execution.interruption import signals_held_back\n"
        "from altgrad_core.interfaces.executor import Job\n"
        "from altgrad_plugins.executors.ray_cluster import RayExecutor\n"
        "from altgrad_plugins.executors.settings import RaySettings\n"
        f"job = Job('run', 'run', Path({str(tmp_path / 'run')!r}), (sys.executable, '-c', {child!r}))\n"
        "nothing = lambda *_: None\n"
        "with signals_held_back() as check:\n"
        f"    RayExecutor(RaySettings(address={cluster.address!r})).execute([job], workers=1, timeout=None,\n"
        "        started=nothing, finished=nothing, tick=check)\n"
    )
    launcher = subprocess.Popen([sys.executable, "-c", parent], stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.txt"
    while not (log.exists() and log.read_text().endswith("\n")):
        assert launcher.poll() is None
        time.sleep(0.1)
    pid = int(log.read_text())
    launcher.send_signal(number)
    _, said = launcher.communicate(timeout=60)
    assert number == signal.SIGKILL or "interrupted by SIGTERM" in said
    assert gone(pid)


def test_a_lost_nodes_run_goes_on_elsewhere_and_ends_as_one_left_in_peace(
    cluster: Any, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_suite(
        training={
            "batch_size": 4,
            "learning_rate": 1e-3,
            "max_steps": 90,
            "eval_interval": 45,
            "log_interval": 3,
            "checkpoint_interval": 3,
        },
        quantization={"residency": "grid", "rounding": "stochastic"},
        matrix={"quantization.format": ["e5m2"]},
        monitors=["flips"],
    )
    plan = plan_suite(load_suite(str(path)))
    (spec,) = plan.specs
    peace, war = (
        RunDirectory(tmp_path / name / plan.suite.name / spec.id) for name in ("peace", "war")
    )
    run_suite(plan, runs=tmp_path / "peace", device="cpu")

    def strike() -> None:
        while not war.checkpoint.exists():
            time.sleep(0.02)
        (victim,) = (n for n in nodes if raylet_of(spec.id) == raylet(n))
        cluster.remove_node(victim, allow_graceful=False)

    nodes = [cluster.node, cluster.add_node(**NODE)]
    strikes = threading.Thread(target=strike)
    strikes.start()
    settings = {"address": cluster.address}
    result = run_suite(
        plan, runs=tmp_path / "war", device="cpu", executor="ray", executor_settings=settings
    )
    strikes.join()
    assert result.ok, war.log.read_text()
    assert re.search(r"going on from the checkpoint of step [1-8]?[0-9]\n", war.log.read_text())
    assert records(war) == records(peace)
    assert yaml.safe_load(war.spec.read_text()) == yaml.safe_load(peace.spec.read_text())


def raylet(node: Any) -> int:
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


def raylet_of(run_id: str) -> int:
    """The process id of the raylet under which a run is."""
    found = subprocess.run(["pgrep", "-f", run_id], capture_output=True, text=True, check=True)
    pid = int(found.stdout.split()[0])
    while b"raylet/raylet" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert pid > 1
    return pid


def records(directory: RunDirectory) -> list[str]:
    return [record.to_json() for record in directory.records()]
