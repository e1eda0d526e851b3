"""A suite from file to report, through the command line, on real child processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from altgrad_core.results.run_directory import RunDirectory


def command(suite: Path, runs: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "altgrad_core.cli", "run", str(suite), "--runs", str(runs)]
    return [*start, "--threads", "1", *more]


def run(suite: Path, runs: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(suite, runs, *more), capture_output=True, text=True, check=False)


def plan_of(folder: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads((folder / "plan.json").read_text())["cells"]
    return cells


def timeless(directory: Path) -> list[str]:
    """Every record less what measures time, as text: NaN equals NaN, and each bit counts."""
    found = []
    for record in RunDirectory(directory).records():
        kept = {n: v for n, v in record.metrics.items() if not n.startswith("throughput/")}
        found.append(record.model_copy(update={"metrics": kept}).to_json())
    return found


def test_a_suite_from_file_to_report(
    write_suite: Callable[..., Path], tmp_path: Path, own_cache: Path
) -> None:
    suite, runs = write_suite(), tmp_path / "runs"
    done = run(suite, runs)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = plan_of(runs / "tiny")
    assert [c["condition"] for c in cells] == [
        "bf16_adamw",
        "bf16_manifold",
        "e5m2_adamw",
        "e5m2_manifold",
    ]
    for cell in cells:
        directory = RunDirectory(runs / "tiny" / cell["id"])
        assert directory.status().status == "ok", directory.log.read_text()
        assert not directory.checkpoint.exists()
        kinds = {record.kind for record in directory.records()}
        assert {"train", "evaluation", "monitor", "final"} <= kinds
        with np.load(directory.predictions) as arrays:
            assert {name.split("_")[0] for name in arrays} == {"validation", "test"}
    html = (runs / "tiny" / "report" / "report.html").read_text()
    for cell in cells:
        assert cell["condition"] in html
        assert cell["id"] in html

    first = {cell["id"]: timeless(runs / "tiny" / cell["id"]) for cell in cells}
    # Cells of one seed see the same first batch, weights and dropout.
    losses = [json.loads(records[0])["metrics"]["train/all/loss"] for records in first.values()]
    assert losses[0] == losses[1] != losses[2] == losses[3]

    again = run(suite, runs, "--no-report")
    assert "4 finished earlier, 0 to go" in again.stdout
    for path in (runs / "tiny").glob("*/metrics.jsonl"):
        path.parent.rename(path.parent.with_name("away-" + path.parent.name))
    # One at a time, each in an interpreter of its own, as two at a time forked from another.
    run(suite, runs, "--workers", "1", "--executor", "fresh", "--no-report")
    for cell in cells:
        directory = runs / "tiny" / cell["id"]
        assert timeless(directory) == first[cell["id"]]
        before = RunDirectory(directory.with_name(f"away-{cell['id']}"))
        assert predictions(RunDirectory(directory)) == predictions(before)


def predictions(directory: RunDirectory) -> dict[str, bytes]:
    with np.load(directory.predictions) as arrays:
        return {name: arrays[name].tobytes() for name in arrays}


GRID = {"residency": "grid", "rounding": "stochastic", "compensation": "kahan"}


@pytest.mark.parametrize(
    ("quantization", "optimizer"),
    [
        ({"scaling": {"mode": "delayed", "history": 4}}, "grid_optim"),
        ({**GRID, "activation_format": "e4m3", "gradient_format": "e5m2"}, "manifold_adamw"),
    ],
    ids=["master", "grid"],
)
def test_killed_in_the_middle_ends_with_the_same_metrics(
    quantization: dict[str, Any],
    optimizer: str,
    write_suite: Callable[..., Path],
    tmp_path: Path,
    own_cache: Path,
) -> None:
    training = {
        "batch_size": 8,
        "learning_rate": 1e-3,
        "max_steps": 400,
        "eval_interval": 100,
        "log_interval": 5,
        "checkpoint_interval": 40,
    }
    suite = write_suite(
        training=training,
        quantization={"format": "e3m4", **quantization},
        matrix={"optimizer.type": [optimizer]},
        monitors={"flips": {"interval": 7}, "rank": {"interval": 50}},
    )
    assert run(suite, tmp_path / "whole", "--no-report").returncode == 0
    [cell] = plan_of(tmp_path / "whole" / "tiny")

    directory = RunDirectory(tmp_path / "cut" / "tiny" / cell["id"])
    assert any(killed_after_a_checkpoint(suite, directory) for _ in range(5))
    assert directory.status().status == "killed"
    assert "SIGKILL" in directory.status().message

    done = run(suite, tmp_path / "cut", "--no-report")
    assert done.returncode == 0, done.stdout + done.stderr
    whole = RunDirectory(tmp_path / "whole" / "tiny" / cell["id"])
    assert timeless(directory.path) == timeless(whole.path)
    with np.load(directory.predictions) as ours, np.load(whole.predictions) as theirs:
        for name in theirs:
            assert np.array_equal(ours[name], theirs[name])


def killed_after_a_checkpoint(suite: Path, directory: RunDirectory) -> bool:
    """Start the suite and kill its worker; False if it was over before, on a machine that is busy."""
    shutil.rmtree(directory.path.parent, ignore_errors=True)
    parent = subprocess.Popen(command(suite, directory.path.parents[1]), stdout=subprocess.DEVNULL)
    while not directory.checkpoint.exists():
        if parent.poll() is not None:
            return False
        time.sleep(0.01)
    os.kill(worker_of(directory.path), signal.SIGKILL)
    return parent.wait(120) == 1


def worker_of(directory: Path) -> int:
    """The process id of the worker that runs ``directory``."""
    found = subprocess.run(
        ["pgrep", "-f", f"altgrad_core.execution.worker {directory.resolve()}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(found.stdout.split()[0])
