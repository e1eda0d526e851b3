"""Results are read where Python has no ``fcntl``, as on Windows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = """
import os, sys
import random  # it asks for register_at_fork too
for name in ("fcntl", "grp", "resource", "syslog"):
    sys.modules[name] = None
at_fork = os.register_at_fork
del os.register_at_fork
from altgrad_core.locks.lock import run_lock
os.register_at_fork = at_fork
from pathlib import Path
from rich.console import Console
from altgrad_core import load_results
from altgrad_core.errors import UserError
from altgrad_core.analysis.find import find
from altgrad_core.report.build import write_report
from altgrad_core.cli_status import print_status
from altgrad_core.results.run_directory import RunDirectory
from altgrad_core.results.sources import read_one
folder = Path(sys.argv[1])
print(len(load_results(folder)))
print_status(folder, "here", Console())
print(write_report(find(read_one(folder)), folder / "report").html.is_file())
try:
    with run_lock(RunDirectory(next(folder.glob("*/spec.yaml")).parent).lock):
        pass
except UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_results_are_read_and_shown_and_a_lock_is_refused(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    run = fabricated.write_run(tmp_path, "e5m2", "adamw", 0, status="running")
    fabricated.write_plan(tmp_path, [fabricated.cell("e5m2", "adamw", 0, run)])
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *middle, report, refused = done.stdout.strip().splitlines()
    assert first == "1"
    assert "1 interrupted" in " ".join(middle)
    assert report == "True"
    assert "cannot be locked" in refused
