"""What is published: sdist and wheel hold what they should, and work in fresh environments of each Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import altgrad_core

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "altgrad_core": "altgrad_core",
    "plugins": "altgrad_plugins",
    "suites": "altgrad_suites",
}
LIGHT = ("typer", "rich", "pluggy", "pydantic", "pyyaml", "packaging")
"""What the half that is free of torch imports."""
PYTHONS = ("3.11", "3.12", "3.13")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHERS = [one for one in PYTHONS if one != HERE]
if os.environ.get("ALTGRAD_PYTHONS") != "all":  # each takes long: make dist tries all
    OTHERS = OTHERS[-1:]


def tracked() -> list[str]:
    """The files of the checkout, those that are not committed yet as well."""
    listing = ("ls-files", "--cached", "--others", "--exclude-standard")
    done = subprocess.run(
        ["git", "-C", str(ROOT), *listing], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sdist and wheel, made from a copy of the checkout."""
    pytest.importorskip("build", reason="needs build: pip install -e '.[test]'")
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs setuptools>=77: pip install -e '.[test]'")
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SetuptoolsDeprecationWarning" not in done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith("/METADATA"))
        told = archive.read(metadata).decode()
    inside = {name for name in names if ".dist-info/" not in name}
    wanted = set()
    for name in tracked():
        top, _, rest = name.partition("/")
        if top in PACKAGES and rest:
            wanted.add(f"{PACKAGES[top]}/{rest}")
    assert inside == wanted
    for name in (
        *("altgrad_core/py.typed", "altgrad_plugins/py.typed", "altgrad_suites/schema.json"),
        *("altgrad_suites/quickstart.yaml", "altgrad_core/report/templates/report.html.j2"),
    ):
        assert name in inside
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert f"Version: {altgrad_core.__version__}\n" in told
    assert {"demo", "docs", "test"} <= set(
        re.findall(r"^Provides-Extra: (.*)$", told, re.MULTILINE)
    )


@pytest.mark.slow
def test_the_sdist_is_the_checkout(built: Path) -> None:
    (found,) = built.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in tracked() if not name.startswith(".")} <= names
    assert not any("__pycache__" in name for name in names)


@pytest.mark.slow
def test_both_are_as_an_index_wants_them(built: Path) -> None:
    pytest.importorskip("twine", reason="needs twine: pip install -e '.[test]'")
    files = [str(path) for path in built.iterdir()]
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def interpreter(wanted: str) -> Path:
    """A Python of that version; skips where there is none."""
    if wanted == HERE:
        return Path(sys.executable)
    named = shutil.which(f"python{wanted}")
    installed = Path.home().glob(f".pyenv/versions/{wanted}.*/bin/python")
    for found in (*([Path(named)] if named else []), *installed):
        code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([found, "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() == wanted:
            return found
    pytest.skip(f"no Python {wanted} on this machine")


def light_requirements() -> list[str]:
    """:data:`LIGHT` and what they require, at the versions installed here."""
    found: dict[str, str] = {}
    waiting = list(LIGHT)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = f"{name}=={version(name)}"
            more = map(Requirement, requires(name) or ())
            waiting += [
                one.name for one in more if not one.marker or one.marker.evaluate({"extra": ""})
            ]
    return list(found.values())


def install(*arguments: str | Path, python: Path | None = None) -> None:
    """``pip install`` these, for that Python; skips where there is no index to install from."""
    there = ("--python", str(python)) if python else ()
    flags = ("--quiet", "--no-compile", "--no-deps", "--only-binary", ":all:")
    command = [sys.executable, "-m", "pip", *there, "install", *flags, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr:
        pytest.skip(f"no index to install from: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr


def environment(wanted: str, folder: Path) -> tuple[Path, Path]:
    """A fresh one in ``folder``: its Python, and where its packages go."""
    subprocess.run([interpreter(wanted), "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python", folder / "lib" / f"python{wanted}" / "site-packages"


def answers(python: Path, folder: Path) -> None:
    """See to it that the torch-free commands work there."""
    code = (
        "import json, sys\n"
        "from altgrad_core.cli import main\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['altgrad-bench', *line]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, (line, end.code)\n"
        "    print('=====')\n"
    )
    lines = [["--help"], ["plan", "eurlex_matrix"], ["list", "--json"], ["schema"]]
    command = [python, "-c", code, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    told, planned, listed, schema, _ = done.stdout.split("=====\n")
    assert "doctor" in told
    assert "12 cells: 12 to run" in planned
    assert len(json.loads(listed)["suites"]) == 7
    assert json.loads(listed)["problems"] == []
    assert json.loads(schema)["title"] == "altgrad-bench suite"


@pytest.mark.slow
@pytest.mark.parametrize("wanted", OTHERS)
def test_it_works_on_another_python(wanted: str, wheel: Path, tmp_path: Path) -> None:
    python, _ = environment(wanted, tmp_path / "env")
    install(wheel, *light_requirements(), python=python)
    answers(python, tmp_path)


@pytest.mark.slow
def test_the_wheel_is_installed_by_pip_with_its_command(wheel: Path, tmp_path: Path) -> None:
    python, packages = environment(HERE, tmp_path / "env")
    install(wheel, python=python)
    requirements = Path(str(distribution("pydantic").locate_file("")))
    (packages / "requirements.pth").write_text(f"{requirements}\n")  # torch and all
    answers(python, tmp_path)
    script = python.with_name("altgrad-bench")
    said = subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout
    assert said == f"altgrad-bench {altgrad_core.__version__}\n"


def test_the_citation_names_this_version() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert found["version"] == altgrad_core.__version__
    for key in ("cff-version", "message", "title", "authors", "license"):
        assert found[key]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_pages_beside_the_docs_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert len(targets) > 1
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target
