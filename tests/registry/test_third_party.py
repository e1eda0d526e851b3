"""The example packages as a stranger would have them: built, installed beside ours, found, checked, run.

One environment of its own holds both, installed from their wheels; it sees the packages of this one.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from warm_cli import Cli

from altgrad_core import load_results

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("altgrad-nf4", "altgrad-posit8")

# Not by find_spec: looking for pip makes setuptools step back for distutils in this whole process.
INSTALLED = {found.metadata["Name"] for found in distributions()}

pytestmark = pytest.mark.skipif(
    not {"pip", "setuptools"} <= INSTALLED,
    reason="installing the examples without a network needs pip and setuptools here",
)

OFFLINE = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]


def done(*command: str | Path) -> str:
    """What the command printed; it must succeed."""
    # a pytest of theirs is not the one that runs this
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    result = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env=surroundings | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the environment. Built from copies: building writes into the source."""
    folder = tmp_path_factory.mktemp("stranger")
    pip = [sys.executable, "-m", "pip"]
    sources = [shutil.copytree(EXAMPLES / name, folder / name) for name in NAMES]
    wheels = folder / "wheels"
    done(*pip, "wheel", *OFFLINE, "--no-build-isolation", "-w", wheels, *sources)
    venv.create(folder / "env", symlinks=True)
    found = folder / "env" / "bin" / "python"
    own = Path(done(found, "-c", "import site; print(site.getsitepackages()[0])").strip())
    ours = [path for path in site.getsitepackages() if Path(path).is_dir()]
    lines = [f"import site; site.addsitedir({path!r})" for path in ours]
    (own / "ours.pth").write_text("\n".join(lines))
    done(*pip, "--python", found, "install", *OFFLINE, "--no-compile", *wheels.iterdir())
    return found


@pytest.mark.slow
def test_they_are_found_beside_the_built_in_ones_without_torch(python: Path) -> None:
    code = """
import sys
from altgrad_core.registry.catalog import catalog
strangers = [("format", "nf4", "altgrad-nf4")]
strangers += [(kind, name, "altgrad-posit8") for kind, name in
    [("format", "posit8"), ("optimizer", "rung_sgd"), ("section", "whereabouts")]]
for kind, name, distribution in strangers:
    entry = catalog().get(kind, name)
    assert (entry.distribution, entry.version) == (distribution, "0.1.0"), entry
assert catalog().get("format", "e5m2").distribution == "altgrad-bench"
assert not [plugin for plugin in catalog().broken if plugin.distribution.startswith("altgrad-")]
assert not catalog().clashes()
assert "torch" not in sys.modules
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite
plan = plan_suite(load_suite("smoke", ["quantization.format=posit8", "optimizer.type=rung_sgd"]))
(cell,) = plan.cells
assert cell.label == "posit8es1_rung_sgd", cell
assert cell.spec.distributions["altgrad-posit8"] == "0.1.0"
assert "torch" not in sys.modules
"""
    done(python, "-c", code)


@pytest.mark.slow
def test_a_suite_runs_with_them(
    python: Path, write_suite: Callable[..., Path], own_cache: Path, tmp_path: Path, warm: Cli
) -> None:
    suite = write_suite(
        training={"batch_size": 8, "learning_rate": 0.3, "max_steps": 4, "eval_interval": 4},
        quantization={"residency": "grid"},
        matrix={
            "quantization.format": ["nf4", "posit8"],
            "optimizer.type": ["rung_sgd"],
        },
        monitors={"overflow": {"interval": 2}, "range": {"interval": 2}, "stalls": {"interval": 2}},
    )
    folder, report = tmp_path / "runs", tmp_path / "report"
    (own,) = python.parents[1].glob("lib/python*/site-packages")
    for command in (
        ["run", suite, "--runs", folder, "--workers", "1", "--no-report"],
        ["report", folder / "tiny", "--questions", "whereabouts", "--out", report],
    ):
        ended = warm.run(*command, environment={"PYTHONPATH": str(own)})
        assert ended.returncode == 0, ended.stdout + ended.stderr
    runs = load_results(folder)
    assert sorted(runs["status"]) == ["ok", "ok"]
    posit = runs.set_index("format").loc["posit8"]
    assert posit["overflow/all/weight_underflow@last"] == 0  # nothing but zero rounds to zero
    (text,) = (path.read_text() for path in report.glob("*.md"))
    assert "Half of the weights lie further below" in text
    versions = yaml.safe_load(next(folder.rglob("spec.yaml")).read_text())
    assert versions["distributions"]["altgrad-posit8"] == "0.1.0"


@pytest.mark.slow
def test_their_own_tests_pass_and_a_format_that_became_slower_fails(
    python: Path, tmp_path: Path
) -> None:
    """The second by the recipe of docs/throughput.md; a slow commit has 64 times as many elements."""
    code = f"""
import os, pytest
from pytest_benchmark.session import PerformanceRegression
flags = ["-q", "-p", "no:cacheprovider", "--rootdir", r"{EXAMPLES}", "-c", os.devnull]
assert pytest.main([*flags, "--benchmark-skip", r"{EXAMPLES}"]) == 0
flags += ["-k", "decode", "--benchmark-only", "--benchmark-storage", r"{tmp_path}",
    "--benchmark-max-time=0.05", r"{EXAMPLES / "altgrad-posit8" / "tests" / "test_speed.py"}"]
os.environ["ELEMENTS"] = "4096"
assert pytest.main([*flags, "--benchmark-autosave"]) == 0
compare = ["--benchmark-compare", "--benchmark-compare-fail=median:1000%"]
assert pytest.main([*flags, *compare]) == 0
os.environ["ELEMENTS"] = "262144"
with pytest.raises(PerformanceRegression):
    pytest.main([*flags, *compare])
"""
    said = done(python, "-c", code)
    assert "28 passed, 7 skipped" in said  # seven are benchmarks
    assert said.count("1 passed") == 2  # the third is cut short
