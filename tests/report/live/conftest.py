"""Run directories of a suite that is under way."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import ModuleType

import pytest


class UnderWay:
    """A suite of two conditions: one ended, one under way; what a worker would do is done by hand."""

    def __init__(self, fabricated: ModuleType, folder: Path) -> None:
        self.f, self.folder = fabricated, folder
        lines = [self.point(step) for step in (1, 2)]
        done = fabricated.write_run(folder, "bf16", "adamw", 0, lines=lines)
        self.id = fabricated.write_run(
            folder, "e5m2", "adamw", 0, lines=lines, status="running", step=10
        )
        self.run = folder / self.id
        cells = [
            fabricated.cell("bf16", "adamw", 0, done),
            fabricated.cell("e5m2", "adamw", 0, self.id),
            fabricated.cell("e5m2", "adamw", 1, "0" * 12),
        ]
        fabricated.write_plan(folder, cells)
        self.beat(10)

    def point(self, step: int) -> str:
        text: str = self.f.line(step, "train", {"train/all/loss": 1.0 / step})
        return text

    def log(self, step: int) -> None:
        with (self.run / "metrics.jsonl").open("a") as file:
            file.write(f"{self.point(step)}\n")

    def beat(self, step: int, status: str = "running", age: float = 0.0) -> None:
        state = {"status": status, "step": step, "max_steps": 100, "seconds": 0.5 * step}
        state["updated"] = time.time() - age
        (self.run / "status.json").write_text(json.dumps(state))


@pytest.fixture
def under_way(fabricated: ModuleType, tmp_path: Path) -> UnderWay:
    return UnderWay(fabricated, tmp_path / "toy")
