"""The example plugin, installed as a stranger's package would be, is found, checked and used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "altgrad-nf4"

# Not by find_spec: looking for pip makes setuptools step back for distutils in this whole process.
INSTALLED = {found.metadata["Name"] for found in distributions()}

pytestmark = pytest.mark.skipif(
    not {"pip", "setuptools"} <= INSTALLED,
    reason="installing the example without a network needs pip and setuptools here",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example installed in it. Built from a copy: building writes into the source."""
    folder = tmp_path_factory.mktemp("nf4")
    source = shutil.copytree(EXAMPLE, folder / "source")
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--quiet"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *flags,
        "-t",
        str(folder / "site"),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def run(site: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_found_beside_the_built_in_ones_without_torch(site: Path) -> None:
    code = """
import sys
from altgrad_core.registry.catalog import catalog
entry = catalog().get("format", "nf4")
assert (entry.distribution, entry.version) == ("altgrad-nf4", "0.1.0"), entry
assert catalog().get("format", "e5m2").distribution == "altgrad-bench"
assert not [plugin for plugin in catalog().broken if plugin.distribution == "altgrad-nf4"]
assert not catalog().clashes()
assert "torch" not in sys.modules
"""
    run(site, "-c", code)


def test_a_suite_can_use_it_and_its_version_is_part_of_the_id(site: Path) -> None:
    code = """
from altgrad_core.planning.plan import plan_suite
from altgrad_core.planning.suite import load_suite
plan = plan_suite(load_suite("smoke", ["quantization.format=nf4", "optimizer.type=adamw"]))
(cell,) = plan.cells
assert cell.label == "nf4_adamw", cell
assert cell.spec.distributions["altgrad-nf4"] == "0.1.0"
"""
    run(site, "-c", code)


def test_its_own_tests_pass(site: Path) -> None:
    tests = EXAMPLE / "tests"
    flags = ["-q", "-p", "no:cacheprovider", "--rootdir", str(tests)]
    assert "3 passed" in run(site, "-m", "pytest", *flags, str(tests))
