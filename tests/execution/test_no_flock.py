"""A suite on a file system without locks: shared by two launchers, of which one is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import until
from warm_cli import FULL, Cli, warm_cli

from altgrad_core.results.run_directory import RunDirectory


@pytest.fixture(scope="module")
def cli() -> Iterator[Cli]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent), prepend=os.pathsep)
        with warm_cli(preloaded=(*FULL, "no_flock")) as running:
            yield running


def _workers(runs: Path) -> list[int]:
    pattern = f"altgrad_core.execution.worker {runs.resolve()}"
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def _records(runs: Path) -> dict[str, list[str]]:
    found = {}
    for spec in runs.glob("*/*/spec.yaml"):
        directory = RunDirectory(spec.parent)
        assert directory.status().status == "ok", directory.log.read_text()
        found[spec.parent.name] = [record.to_json() for record in directory.records()]
    return found


@pytest.mark.slow
def test_a_suite_without_locks_is_shared_killed_and_gone_on_with(
    write_suite: Callable[..., Path], tmp_path: Path, own_cache: Path, cli: Cli
) -> None:
    suite = write_suite(monitors=["flips"], matrix={"quantization.format": ["bf16", "e5m2"]})

    def start(runs: str) -> list[str | Path]:
        return ["run", suite, "--runs", tmp_path / runs, "--workers", "2", "--no-report"]

    peaceful = cli.run(*start("peace"))
    assert peaceful.returncode == 0, peaceful.stdout + peaceful.stderr
    runs = tmp_path / "war"
    first, second = cli.start(*start("war")), cli.start(*start("war"))
    until(lambda: list(runs.glob("*/*/metrics.jsonl")), 120)
    os.kill(first.pid, signal.SIGKILL)
    for worker in _workers(runs)[:1]:
        os.kill(worker, signal.SIGKILL)
    said = second.done()
    assert said.returncode in (0, 1), said.stdout + said.stderr
    again = cli.run(*start("war"))
    assert again.returncode == 0, again.stdout + again.stderr
    assert _records(runs) == _records(tmp_path / "peace")
    assert not _workers(runs)
    for environment in runs.glob("*/*/environment.json"):
        assert json.loads(environment.read_text())["attempts"] <= 2, "made by both launchers"
