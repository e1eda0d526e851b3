"""Writes results of the layout of today: ``python tests/layouts/write.py`` from the root of the repository.

``layout-N.zip`` is a suite as ``altgrad-bench pack`` leaves it, ``layout-N.tar.gz`` the folder of runs itself, in which
one run is cut off after a checkpoint, ``layout-N.json`` what readers find in both. Those of a layout that was
released are never written anew: they are what users have.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from altgrad_core.execution import worker
from altgrad_core.execution.options import RunOptions
from altgrad_core.execution.runner import run_suite
from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_core.interfaces.layout import LAYOUT
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite
from altgrad_core.results.archive import pack
from altgrad_core.results.collect import load_results
from altgrad_core.results.stored import read_suites
from altgrad_plugins.tasks.classification import TextClassification

HERE = Path(__file__).parent
SUITE: dict[str, Any] = {
    "name": "layout",
    "model": {"hidden_dim": 8, "num_layers": 1, "num_heads": 2, "max_length": 12},
    "data": {"dataset": "eurlex", "path": "acts", "vocab_size": 120},
    "training": {
        "batch_size": 4,
        "learning_rate": 1e-3,
        "max_steps": 6,
        "eval_interval": 3,
        "log_interval": 2,
        "checkpoint_interval": 2,
    },
    "quantization": {"residency": "grid", "rounding": "stochastic"},
    "matrix": {"quantization.format": ["e5m2"], "optimizer.type": ["adamw", "manifold_adamw"]},
    "seeds": [0, 1],
    "contrast": {"axis": "optimizer.type", "baseline": "adamw", "treatment": "manifold_adamw"},
    "monitors": ["flips"],
    "trackers": ["jsonl"],
}
READ = ["id", "condition", "seed", "status", "step", "format", "optimizer", "residency"]
SCORES = ["final/test/f1_micro_tuned", "final/test/loss", "final/validation/f1_micro"]


class InProcess(Executor):
    """Runs jobs here, one after another."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def execute(self, jobs: Sequence[Job], **calls: Any) -> None:
        for job in jobs:
            calls["started"](job)
            calls["finished"](job, Exit(worker.run_worker(job.directory, "cpu", self.cache)))


def make(folder: Path, write_acts: Callable[[Path, int, int], None]) -> Path:
    """The suite's folder of runs, made in ``folder``: three runs with a result, and one without."""
    (folder / "acts").mkdir()
    for seed, (split, count) in enumerate([("train", 24), ("validation", 6), ("test", 6)]):
        write_acts(folder / "acts" / f"{split}.jsonl.gz", count, seed)
    (folder / "layout.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
    plan = plan_suite(load_suite(folder / "layout.yaml"))
    last = [cell.spec.seed for cell in plan.cells if cell.spec is not None][-1]
    batch = TextClassification.batch
    begun: list[int] = []

    def cut_off(task: Any, step: int, size: int, seed: int) -> Any:
        begun.append(step)
        if step == 5 and seed == last and begun.count(1) == 4:
            raise MemoryError("no more")
        return batch(task, step, size, seed)

    with (
        patch.object(TextClassification, "batch", cut_off),
        patch("altgrad_core.execution.environment.socket.gethostname", lambda: "host"),
        patch("altgrad_core.execution.environment.platform.platform", lambda: "Linux"),
        patch("altgrad_core.execution.environment.git_revision", lambda: None),
        patch("altgrad_core.execution.cells.prepare_data", lambda *_: "cpu"),
        patch("altgrad_core.execution.runner.catalog") as catalog,
    ):
        catalog().build.return_value = InProcess(folder / "cache")
        run_suite(plan, RunOptions(folder / "runs", command="altgrad-bench run layout"), Silent())
    return folder / "runs" / "layout"


class Silent:
    """Sees, says nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def found(path: Path) -> list[dict[str, Any]]:
    """What readers find: of each run what it is, and its scores."""
    table = load_results(path).sort_values(["condition", "seed"])[[*READ, *SCORES]]
    return [
        {name: None if value != value else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def write(folder: Path, made: Path) -> None:
    """Write the three files of this layout to ``folder``."""
    name = folder / f"layout-{LAYOUT}"
    pack(read_suites(made), name.with_suffix(".zip"))
    with tarfile.open(f"{name}.tar.gz", "w:gz") as tar:
        for path in sorted(one for one in made.rglob("*") if one.is_file()):
            info = tarfile.TarInfo(f"layout/{path.relative_to(made)}")
            content = path.read_bytes()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    name.with_suffix(".json").write_text(json.dumps(found(made), indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    from conftest import write_acts

    with tempfile.TemporaryDirectory(prefix="layout-") as scratch:
        write(HERE, make(Path(scratch), write_acts))
