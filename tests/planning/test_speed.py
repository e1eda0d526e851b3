"""``altgrad-bench plan`` answers in well under a second, since nothing heavy is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = (
    *("torch", "transformers", "tokenizers", "datasets", "pandas", "pyarrow", "matplotlib"),
    *("wandb", "torchmetrics", "sklearn", "scipy", "numpy"),
)


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("suite", ["eurlex_matrix", "quickstart", "smoke"])
def test_planning_a_shipped_suite_imports_nothing_heavy(suite: str) -> None:
    out = _run(
        "import sys\n"
        "from altgrad_core.planning.suite import load_suite\n"
        "from altgrad_core.planning.planner import plan_suite\n"
        f"plan = plan_suite(load_suite({suite!r}))\n"
        f"print(len(plan.cells), [m for m in {_HEAVY!r} if m in sys.modules])\n"
    )
    count, _, heavy = out.strip().partition(" ")
    assert heavy == "[]"
    assert int(count) == (4 if suite == "smoke" else 12)


def test_the_command_line_imports_nothing_heavy() -> None:
    out = _run(
        "import sys\n"
        "sys.argv = ['altgrad-bench', 'plan', 'eurlex_matrix', '--json']\n"
        "from altgrad_core.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print([m for m in {_HEAVY!r} if m in sys.modules])\n"
    )
    assert out.strip().splitlines()[-1] == "[]"
