"""Studies: their suites (and those of the step) can be planned, and their archives give the numbers published.

Of archives above ``LARGE`` bytes this is asked with ``ALTGRAD_ARCHIVES=all``: two minutes more. ``make reports`` in a
study's folder makes all reports anew, for git to compare.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from warm_cli import Cli

from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite

STUDIES = Path(__file__).parents[1] / "studies"
SUITES = sorted(
    [*STUDIES.glob("*/suites/*.yaml"), *Path(__file__).parent.glob("throughput/*.yaml")]
)
ARCHIVES = sorted(STUDIES.glob("*/results/*.zip"))
LARGE = 8_000_000
ALL = os.environ.get("ALTGRAD_ARCHIVES") == "all"


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_its_suites_can_be_planned(path: Path, tiny_acts: Path) -> None:
    given = [f"data.path={tiny_acts}"] if "path: null" in path.read_text() else []
    suite = load_suite(path, given)
    assert suite.name == path.stem
    plan = plan_suite(suite)
    assert not [cell.skip for cell in plan.cells if cell.skip]


@pytest.mark.slow
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.stem)
def test_its_archives_give_what_was_published(archive: Path, tmp_path: Path, warm: Cli) -> None:
    if archive.stat().st_size > LARGE and not ALL:
        pytest.skip("a large archive: ALTGRAD_ARCHIVES=all")
    done = warm.run("report", archive, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    published = archive.parents[1] / "reports" / archive.stem
    tables = [path.name for path in published.glob("*.csv")]
    assert "conditions.csv" in tables
    for name in tables:
        rebuilt = pd.read_csv(tmp_path / "report" / name)
        expected = pd.read_csv(published / name)
        pd.testing.assert_frame_equal(rebuilt, expected, rtol=1e-9, atol=1e-12, obj=name)


@pytest.mark.slow
def test_what_its_scripts_give_is_what_was_published(tmp_path: Path) -> None:
    """Predictions, what became of them, and gains at equal rates, from archives and reports alone."""
    study = STUDIES / "2026-which-format"
    for script in study.glob("*.py"):
        shutil.copy(script, tmp_path)
    shutil.copytree(study / "reports", tmp_path / "reports")
    archives = [
        study / "results" / f"{part}.zip" for part in ("stochastic-400", "probe-400", "unseen-400")
    ]
    for script, given in (
        ("why", archives[:1]),
        ("predict", archives[:2]),
        ("predict", archives[2:]),
        ("rates", []),
    ):
        command = [sys.executable, f"{script}.py", *map(str, given)]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    for name in ("why.csv", "candidates.csv", "predictions.csv", "predicted.csv", "rates.csv"):
        rebuilt, expected = (pd.read_csv(folder / name) for folder in (tmp_path, study))
        pd.testing.assert_frame_equal(rebuilt, expected, rtol=1e-9, atol=1e-12, obj=name)
