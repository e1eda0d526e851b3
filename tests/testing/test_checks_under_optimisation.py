"""The conformance checks do not vanish under ``python -O``."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import altgrad_core

BAD = """
import torch, warnings
from pathlib import Path
from altgrad_core.interfaces import Format, Metric, Monitor, OptimizerPlugin, Tracker
from altgrad_core.testing.formats import check_format
from altgrad_core.testing.monitors import check_monitor
from altgrad_core.testing.optimizers import check_optimizer
from altgrad_core.testing.tasks import check_task
from altgrad_core.testing.trackers import check_tracker

warnings.simplefilter("ignore")

class BadFormat(Format):
    name, bits = "wrong", 3
    def code_values(self): return torch.tensor([0., 1., 2., 3., -0., -1., -2., -3.])
    def ulp(self, x): return torch.full_like(x, 7.0)

class BadMonitor(Monitor):
    interval = 1
    def after_update(self, step): raise RuntimeError("broken")

class BadOptimizer(OptimizerPlugin):
    def build(self, groups, geometry, *, learning_rate, generator):
        return torch.optim.SGD(groups, lr=0.0)

class BadTracker(Tracker):
    def log(self, step, metrics): raise RuntimeError("broken")

checks = {
    "format": lambda: check_format(BadFormat()),
    "monitor": lambda: check_monitor(BadMonitor()),
    "optimizer": lambda: check_optimizer(BadOptimizer()),
    "tracker": lambda: check_tracker(BadTracker()),
    "task": lambda: check_task(object, Path("unused"), metrics=(Metric("a", "A", "higher"),)),
}
for name, check in checks.items():
    try:
        check()
    except AssertionError:
        continue
    print("passed:", name)
print("optimised:", not __debug__)
"""


@pytest.mark.slow
def test_broken_plugins_are_found_without_assert_statements(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-c", BAD],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "optimised: True\n", done.stdout + done.stderr


def test_no_check_is_an_assert_statement() -> None:
    files = sorted((Path(altgrad_core.__file__).parent / "testing").glob("*.py"))
    assert files
    for file in files:
        asserts = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Assert)]
        assert not asserts, f"{file}, line {asserts[0].lineno}"
