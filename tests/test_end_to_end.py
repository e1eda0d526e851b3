"""A suite from file to report, through the command line, on real child processes.

The first command line is an interpreter of its own, as are some of the workers; the others are copies of one.
"""

from __future__ import annotations

import json
import subprocess
import sys
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
    remade = cells[3:]
    for cell in remade:
        path = runs / "tiny" / cell["id"]
        path.rename(path.with_name(f"away-{cell['id']}"))
    # Alone, in an interpreter of its own, as beside others and forked from another.
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


def test_templates_are_copies_of_what_is_warm(warm: Cli) -> None:
    """Else each suite of the tests would import everything again, and nothing would show it."""
    program = "from altgrad_plugins.executors import children; print(children.subprocess.Popen)"
    assert "_popen" in warm.run("-c", program).stdout
