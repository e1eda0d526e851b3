"""A suite that is killed again and again ends as one that was left in peace.

Launcher and workers are killed at random moments with every signal that ends a process. ``ALTGRAD_KILLS``
sets how often (20; a thousand and more find what is rare, and no time limit holds then), ``ALTGRAD_KILLS_SEED``
the moments and victims, ``ALTGRAD_KILLS_MINUTES`` when it is enough in any case. ``-s`` shows how far it is.

With ``ALTGRAD_KILLS_FRESH=1`` launchers and templates are interpreters of their own, which can be killed while
they import, and take ten times as long; else they are copies of one that has.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from warm_cli import Cli, Running, warm_cli

from altgrad_core.results.run_directory import RunDirectory
from altgrad_core.training.checkpoint import load_checkpoint

KILLS = int(os.environ.get("ALTGRAD_KILLS", "20"))
MINUTES = float(os.environ.get("ALTGRAD_KILLS_MINUTES", "inf"))
FRESH = os.environ.get("ALTGRAD_KILLS_FRESH") == "1"
SEED = int(os.environ.get("ALTGRAD_KILLS_SEED", "0"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
WORKER = "altgrad_core.execution.worker"
MASTER = {"scaling": {"mode": "delayed", "history": 4}}
GRID = {
    **{"residency": "grid", "rounding": "stochastic", "compensation": "kahan"},
    **{"activation_format": "e4m3", "gradient_format": "e5m2"},
}


class Suite:
    """A suite in a runs folder of its own, and the processes that work on it."""

    def __init__(self, cli: Cli, suite: Path, runs: Path) -> None:
        self.runs, self._cli = runs, cli
        self._command = ["run", str(suite), "--runs", str(runs), "--workers", "2", "--no-report"]

    def start(self) -> Running:
        """The launcher."""
        return self._cli.start(*self._command)

    def finish(self) -> float:
        """Run to the end; the seconds that it took."""
        begin, done = time.monotonic(), self.start().done()
        assert done.returncode == 0, done.stdout + done.stderr
        return time.monotonic() - begin

    def workers(self) -> list[int]:
        """The process ids of those that train, or prepare the data."""
        pattern = f"{WORKER} {self.runs.resolve()}"
        found = subprocess.run(
            ["pgrep", "-f", pattern], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def directories(self) -> dict[str, RunDirectory]:
        return {p.parent.name: RunDirectory(p.parent) for p in self.runs.glob("*/*/spec.yaml")}

    def training(self) -> bool:
        """Whether a worker is beyond a checkpoint."""
        checkpoints = [d.checkpoint.exists() for d in self.directories().values()]
        return any(checkpoints) and bool(self.workers())

    def check_files(self) -> None:
        """Every file that is there under its own name is whole."""
        for directory in self.directories().values():
            directory.status()
            list(directory.records())
            for path in directory.path.glob("*.json"):
                json.loads(path.read_text())
            load_checkpoint(directory.checkpoint)

    def results(self) -> dict[str, tuple[list[str], dict[str, bytes]]]:
        """Of each run every record less what measures time, and the predictions; to the last bit."""
        found = {}
        for name, directory in self.directories().items():
            assert directory.status().status == "ok", directory.log.read_text()
            records = []
            for record in directory.records():
                kept = {n: v for n, v in record.metrics.items() if not n.startswith("throughput/")}
                records.append(record.model_copy(update={"metrics": kept}).to_json())
            with np.load(directory.predictions) as arrays:
                found[name] = records, {key: arrays[key].tobytes() for key in arrays}
        return found


def soon(happened: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def cli(request: pytest.FixtureRequest) -> Iterator[Cli]:
    if FRESH:
        with warm_cli(preloaded=()) as running:
            yield running
    else:
        yield request.getfixturevalue("warm")


@pytest.mark.timeout(600 if KILLS <= 20 else 0)
def test_a_suite_killed_at_random_moments_ends_as_one_left_in_peace(
    write_suite: Callable[..., Path], tmp_path: Path, own_cache: Path, cli: Cli
) -> None:
    path = write_suite(
        training={
            "batch_size": 4,
            "learning_rate": 1e-3,
            "max_steps": 9,
            "eval_interval": 6,
            "log_interval": 3,
            "checkpoint_interval": 3,
        },
        matrix={},
        include=[
            {"optimizer": {"type": "grid_optim"}, "quantization": {"format": "e3m4", **MASTER}},
            {"optimizer": {"type": "manifold_adamw"}, "quantization": {"format": "e5m2", **GRID}},
        ],
        monitors="all",
        trackers=["jsonl"],
    )
    peaceful = Suite(cli, path, tmp_path / "peace")
    disturbed = Suite(cli, path, tmp_path / "war")
    seconds = peaceful.finish()
    expected = peaceful.results()
    assert len(expected) == 2

    draw = random.Random(SEED)
    kills = while_training = whole = 0
    enough = time.monotonic() + MINUTES * 60
    while kills < KILLS and time.monotonic() < enough:
        launcher = disturbed.start()
        while kills < KILLS and launcher.poll() is None:
            time.sleep(draw.uniform(0, seconds / 12))
            if kills % 10 == 1:  # not only those that start
                soon(disturbed.training, seconds)
            number, whom, workers = draw.choice(SIGNALS), draw.random(), disturbed.workers()
            if launcher.poll() is not None:
                break
            while_training += disturbed.training()
            kills += 1
            if whom < 0.3 or not workers:
                launcher.send_signal(number)
                break
            kill(draw.choice(workers), number)
        else:
            launcher.send_signal(signal.SIGTERM)
        launcher.wait(60)
        ended = launcher.done()
        said = ended.stdout + ended.stderr
        assert ended.returncode != 2 or "preparing the data failed: killed" in said, said
        assert soon(lambda: not disturbed.workers(), 30), "orphans"
        disturbed.check_files()
        if ended.returncode == 0:  # it was quicker
            assert disturbed.results() == expected
            shutil.rmtree(disturbed.runs)
            whole += 1
        print(
            f"{kills} kills, {while_training} while training; {whole} suites as undisturbed",
            flush=True,
        )
    assert while_training

    disturbed.finish()
    assert disturbed.results() == expected
    assert list(disturbed.runs.rglob(".*")) == [], "half-written files"


def kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # it ended by itself just now
        return
