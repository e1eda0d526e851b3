"""``altgrad-bench new``: strangers' packages of every kind install, keep the contract and run in a suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from warm_cli import Cli

from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import Kind
from altgrad_core.scaffold.package import next_steps, write_package

KINDS: tuple[Kind, ...] = get_args(Kind)
INSTALLED = {found.metadata["Name"].lower() for found in distributions()}


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A package of each kind, as ``new`` writes it: ``sources``, and ``site`` with all installed."""
    if not {"pip", "setuptools"} <= INSTALLED:
        pytest.skip("installing without a network needs pip and setuptools here")
    root = tmp_path_factory.mktemp("strangers")
    sources = [write_package(kind, f"my-{kind}", root) for kind in KINDS]
    site = root / "site"
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *flags, "-t", str(site), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(sources=sources, site=site, root=root)


def surroundings(strangers: SimpleNamespace) -> dict[str, str]:
    """The variables with which they are found."""
    return {
        "PYTHONPATH": str(strangers.site),
        "OMP_NUM_THREADS": "1",
        "ALTGRAD_CACHE": str(strangers.root / "cache"),
    }


def run(cli: Cli, strangers: SimpleNamespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    return cli.run(*arguments, folder=strangers.root, environment=surroundings(strangers))


@pytest.mark.slow
def test_they_are_listed_with_distribution_and_version(
    strangers: SimpleNamespace, cli: Cli
) -> None:
    done = run(cli, strangers, "list", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    listed = json.loads(done.stdout)
    for kind in KINDS:
        (mine,) = [row for row in listed[f"{kind}s"] if row["name"] == f"my-{kind}"]
        assert mine["from"] == f"my-{kind} 0.1.0"


@pytest.mark.slow
def test_they_keep_the_contract(strangers: SimpleNamespace, warm: Cli) -> None:
    names = [f"my-{kind}" for kind in KINDS]
    done = run(warm, strangers, "check", "--json", *names)
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    assert [one["kind"] for one in found["results"]] == [
        k for kind in KINDS for k in ("modules", kind)
    ]
    assert {one["result"] for one in found["results"]} == {"ok"}


@pytest.mark.slow
def test_their_own_tests_pass(strangers: SimpleNamespace) -> None:
    folders = [
        str(source / "tests")
        for source in strangers.sources
        if source.name in ("my-section", "my-tracker")  # the quickest
    ]
    flags = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", *flags, *folders],
        cwd=strangers.root,
        env=os.environ | surroundings(strangers),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_they_run_in_a_suite(strangers: SimpleNamespace, warm: Cli, page_script: Path) -> None:
    settings = [
        "quantization.format=my-format",
        "optimizer.type=[adamw,my-optimizer]",
        "monitors=[my-monitor]",
        "trackers=[my-tracker]",
        "training.max_steps=10",
        "training.eval_interval=10",
    ]
    suite = strangers.root / "my-task" / "suite.yaml"
    sets = [word for setting in settings for word in ("--set", setting)]
    cache = strangers.root / "cache"
    cache.mkdir(exist_ok=True)
    (cache / page_script.name).symlink_to(page_script)
    done = run(warm, strangers, "run", str(suite), "--executor", "my-executor", *sets)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = strangers.root / "runs" / "my-task"
    copies = sorted(runs.glob("*/my_tracker.txt"))
    assert len(copies) == 2
    assert "my_monitor/0.weight/norm" in copies[0].read_text()
    assert "Which run took longest?" in (runs / "report" / "report.md").read_text()


@pytest.mark.slow
def test_ruff_has_nothing_to_say(strangers: SimpleNamespace) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("needs ruff")
    lengths = (2, 3, 18, 40)  # at 18 a line of a monitor's was just short enough to be joined
    named = [
        write_package(kind, f"{kind[0]:x<{length}}", strangers.root / "named" / kind)
        for kind in KINDS
        for length in lengths
    ]
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run(
            [str(ruff), *command, *map(str, [*strangers.sources, *named])],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My-Posit", "use lower-case letters, digits and single '-' or '_'"),
        ("-posit", "use lower-case letters"),
        ("posit-", "use lower-case letters"),
        ("a--b", "use lower-case letters"),
        ("../posit", "use lower-case letters"),
        ("", "use lower-case letters"),
        ("x" * 41, "at most 40"),
        ("tests", "a folder tests beside pyproject.toml is taken for something else: try my-tests"),
        ("altgrad_bench", "a distribution altgrad_bench .* is installed already"),
        (
            "pyyaml",
            "a distribution pyyaml .* is installed already, and pip would put 'pyyaml' in its",
        ),
        ("class", "Python keeps for itself: try my-class"),
        ("json", "Python keeps for itself"),
        ("torch", "a distribution torch .* is installed already"),
        ("yaml", "a Python module yaml is installed already"),
        ("e5m2", "there is format 'e5m2' already, offered by altgrad-bench"),
        ("here", "is there already"),
    ],
)
def test_a_name_that_will_not_do_is_one_sentence_and_writes_nothing(
    name: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match=said):
        write_package("format", name, tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_into_that_is_a_file_is_refused_and_one_that_is_not_there_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file: name a folder"):
        write_package("format", "my-posit", tmp_path / "file")
    folder = write_package("format", "my-posit", tmp_path / "new" / "place")
    assert (folder / ".github" / "workflows" / "check.yml").exists()
    assert "altgrad-bench check my-posit" in next_steps("format", "my-posit", folder)
    assert next_steps("task", "mine", Path("my own/mine")) == [
        "pip install -e 'my own/mine'",
        "altgrad-bench check mine",
        "altgrad-bench run 'my own/mine/suite.yaml'",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_like_that_of_the_interface_makes_a_class_of_its_own(
    kind: Kind, tmp_path: Path
) -> None:
    folder = write_package(kind, kind, tmp_path)
    source = (folder / kind / "plugin.py").read_text()
    assert f"class My{kind.capitalize()}(" in source
