"""What workers are said to import: what all of a suite's do, and nothing that is another cell's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.execution.launch import worker_imports
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite


def specs_of(path: Path) -> Any:
    return plan_suite(load_suite(path)).specs


def test_what_only_some_cells_use_is_left_to_them(write_suite: Callable[..., Path]) -> None:
    both = worker_imports(specs_of(write_suite()))
    assert both[0] == "altgrad_core.execution.worker"
    assert "altgrad_plugins.tasks.classification" in both
    assert "altgrad_plugins.monitors.rank.rank" in both
    assert "transformers.models.bert.modeling_bert" in both
    assert not [name for name in both if name.startswith("altgrad_plugins.optimizers")]
    one = worker_imports(specs_of(write_suite(matrix={"optimizer.type": ["adamw"]})))
    assert set(one) - set(both) == {"altgrad_plugins.optimizers.adamw"}


@pytest.mark.slow
def test_a_run_imports_nothing_large_beyond_it(
    write_suite: Callable[..., Path], tmp_path: Path, own_cache: Path
) -> None:
    """Each large package that it needs is in what the template imports; pandas it does not need."""
    path = write_suite(matrix={"optimizer.type": ["manifold_adamw"]}, monitors="all")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from importlib import import_module\n"
        "from altgrad_core.execution.launch import worker_imports\n"
        "from altgrad_core.planning.planner import plan_suite\n"
        "from altgrad_core.planning.spec_file import dump_spec\n"
        "from altgrad_core.planning.suite import load_suite\n"
        "[spec] = plan_suite(load_suite(sys.argv[1])).specs\n"
        "for name in worker_imports([spec]): import_module(name)\n"
        "before = set(sys.modules)\n"
        "from altgrad_core.execution import worker\n"
        "place = Path(sys.argv[2], spec.id)\n"
        "(place / 'checkpoint').mkdir(parents=True)\n"
        "(place / 'spec.yaml').write_text(dump_spec(spec))\n"
        "assert worker.main([str(place), '--cache', sys.argv[3]]) == 0\n"
        "late = sorted(name for name in sys.modules.keys() - before if '.' not in name)\n"
        "print('late:', *late)\n"
        "assert 'pandas' not in sys.modules\n"
        "assert len(sys.modules.keys() - before) < 40, sys.modules.keys() - before\n"
    )
    command = [sys.executable, "-c", program, str(path), str(tmp_path), str(own_cache)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
