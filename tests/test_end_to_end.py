"""A suite from file to report, through the command line, on real child processes.

The first command line is an interpreter of its own, as are some of the workers; the others are copies of one.
"""

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
from warm_cli import Cli

from altgrad_core.results.run_directory import RunDirectory


def command(suite: Path, runs: Path, *more: str) -> list[str]:
    return ["run", str(suite), "--runs", str(runs), "--threads", "1", *more]


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
    write_suite: Callable[..., Path], tmp_path: Path, own_cache: Path, warm: Cli
) -> None:
    suite, runs = write_suite(), tmp_path / "runs"
    start = [sys.executable, "-m", "altgrad_core.cli", *command(suite, runs)]
    done = subprocess.run(start, capture_output=True, text=True, check=False)
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

    again = warm.run(*command(suite, runs, "--no-report"))
    assert "4 finished earlier, 0 to go" in again.stdout
    remade = cells[1::2]
    for cell in remade:
        path = runs / "tiny" / cell["id"]
        path.rename(path.with_name(f"away-{cell['id']}"))
    # One at a time, each in an interpreter of its own, as two at a time forked from another.
    warm.run(*command(suite, runs, "--workers", "1", "--executor", "fresh", "--no-report"))
    for cell in remade:
        directory = runs / "tiny" / cell["id"]
        assert timeless(directory) == first[cell["id"]]
        before = RunDirectory(directory.with_name(f"away-{cell['id']}"))
        assert predictions(RunDirectory(directory)) == predictions(before)
    verify = ["verify", cells[3]["id"][:8], "--runs", str(runs), "--json"]
    verified = warm.run(*verify)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    [verdict] = json.loads(verified.stdout)
    assert (verdict["id"], verdict["identical"]) == (cells[3]["id"], True)


def predictions(directory: RunDirectory) -> dict[str, bytes]:
    with np.load(directory.predictions) as arrays:
        return {name: arrays[name].tobytes() for name in arrays}


MASTER = {"scaling": {"mode": "delayed", "history": 4}}
GRID = {
    **{"residency": "grid", "rounding": "stochastic", "compensation": "kahan"},
    **{"activation_format": "e4m3", "gradient_format": "e5m2"},
}


def test_killed_in_the_middle_ends_with_the_same_metrics(
    write_suite: Callable[..., Path], tmp_path: Path, own_cache: Path, warm: Cli
) -> None:
    """A run with masters and one on the grid, whose workers are killed; the launcher goes on."""
    suite = write_suite(
        training={
            "batch_size": 8,
            "learning_rate": 1e-3,
            "max_steps": 150,
            "eval_interval": 50,
            "log_interval": 5,
            "checkpoint_interval": 20,
        },
        matrix={},
        include=[
            {"optimizer": {"type": "grid_optim"}, "quantization": {"format": "e3m4", **MASTER}},
            {"optimizer": {"type": "manifold_adamw"}, "quantization": {"format": "e3m4", **GRID}},
        ],
        monitors={"flips": {"interval": 7}, "rank": {"interval": 50}},
    )
    assert warm.run(*command(suite, tmp_path / "whole", "--no-report")).returncode == 0
    whole = {
        cell["id"]: tmp_path / "whole" / "tiny" / cell["id"]
        for cell in plan_of(tmp_path / "whole" / "tiny")
    }
    cut = {name: RunDirectory(tmp_path / "cut" / "tiny" / name) for name in whole}

    assert any(killed_after_a_checkpoint(warm, suite, list(cut.values())) for _ in range(5))
    for directory in cut.values():
        assert directory.status().status == "killed"
        assert "SIGKILL" in directory.status().message

    done = warm.run(*command(suite, tmp_path / "cut", "--no-report"))
    assert done.returncode == 0, done.stdout + done.stderr
    for name, directory in cut.items():
        assert timeless(directory.path) == timeless(whole[name])
        assert predictions(directory) == predictions(RunDirectory(whole[name]))


def killed_after_a_checkpoint(warm: Cli, suite: Path, directories: list[RunDirectory]) -> bool:
    """Start the suite and kill its workers; False if one was over before, on a machine that is busy."""
    runs = directories[0].path.parents[1]
    shutil.rmtree(runs, ignore_errors=True)
    parent = warm.start(*command(suite, runs, "--no-report"))
    killed = set[Path]()
    while len(killed) < len(directories):
        if parent.poll() is not None:
            return False
        for directory in directories:
            if directory.checkpoint.exists() and directory.path not in killed:
                os.kill(worker_of(directory.path), signal.SIGKILL)
                killed.add(directory.path)
        time.sleep(0.01)
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
