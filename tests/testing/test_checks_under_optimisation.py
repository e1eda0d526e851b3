"""The conformance checks do not vanish under ``python -O``."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import altgrad_core

OPTIMISE = """
from importlib.machinery import SourceFileLoader

plain = SourceFileLoader.get_code

def get_code(self, name):
    if not name.startswith("altgrad_"):
        return plain(self, name)
    return compile(self.get_data(self.path), self.path, "exec", dont_inherit=True, optimize=1)

SourceFileLoader.get_code = get_code
import altgrad_probe
"""
PROBE = "assert False\nif __debug__:\n    raise AssertionError\n"
"""Can be imported where it is optimised alone."""

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
print("all tried")
"""


@pytest.mark.slow
def test_broken_plugins_are_found_without_assert_statements(tmp_path: Path) -> None:
    """All of ours as ``python -O`` compiles it, which would compile all of torch as well: half a minute."""
    (tmp_path / "altgrad_probe.py").write_text(PROBE)
    done = subprocess.run(
        [sys.executable, "-c", OPTIMISE + BAD],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "all tried\n", done.stdout + done.stderr


def test_no_check_is_an_assert_statement() -> None:
    files = sorted((Path(altgrad_core.__file__).parent / "testing").glob("*.py"))
    assert files
    for file in files:
        lines = left_out(file.read_text())
        assert not lines, f"{file}, line {lines[0]}"


def test_what_would_be_left_out_is_seen() -> None:
    assert left_out("def f(x):\n    assert x\n    if __debug__:\n        g(x)\n") == [2, 3]


def left_out(source: str) -> list[int]:
    """The lines of what an optimising Python leaves out."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "__debug__")
    ]
