"""docs/tutorial.md, word for word, in an environment of its own; the suites are planned and not run."""

from __future__ import annotations

import os
import re
import subprocess
import venv
from importlib.metadata import distribution, distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALLED = {found.metadata["Name"].lower() for found in distributions()}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables of a shell in a fresh environment that sees this one's packages; pip needs no network."""
    if not {"pip", "setuptools"} <= INSTALLED:
        pytest.skip("installing without a network needs pip and setuptools here")
    venv.create(tmp_path / "env", symlinks=True)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    seen = dict.fromkeys(str(distribution(name).locate_file("")) for name in ("pip", "torch"))
    (site / "seen.pth").write_text("\n".join([*seen, str(ROOT), str(ROOT / ".typing")]) + "\n")
    programs = tmp_path / "env" / "bin"
    for name, module in (("pip", "pip"), ("altgrad-bench", "altgrad_core.cli")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{programs}/python" -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    mine = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    switches = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    return os.environ | mine | switches | {"ALTGRAD_CACHE": str(tmp_path / "cache")}


@pytest.mark.slow
def test_word_for_word(environment: dict[str, str], tmp_path: Path) -> None:
    said: list[str] = []
    blocks = FENCE.findall(PAGE)
    assert len(blocks) == 8
    for language, text in blocks:
        if language == "python":
            edit(tmp_path, text)
            continue
        for line in text.splitlines():
            if line == "pip install 'altgrad-bench[demo]'":  # that is what is tested
                continue
            command = re.sub(r"\brun\b", "plan", line) if "altgrad-bench run" in line else line
            done = subprocess.run(
                command, shell=True, capture_output=True, text=True,
                cwd=tmp_path, env=environment, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            said.append(done.stdout)
    written, _, listed, shown, checked, smoke, _ = said
    assert "written: my-posit" in written
    assert re.search(r"my-posit\s.*my-posit 0\.1\.0", listed)
    assert "the largest value / 1024" in shown
    assert "4096 (2^12)" in shown
    assert "my-posit" in checked
    assert "my-posit_manifold" in smoke
    assert "6 cells: 6 to run, 0 skipped" in smoke


def edit(folder: Path, text: str) -> None:
    """Do to a file what the page says: its first line names the file, and whether the rest is added."""
    named = re.match(r"# (\S+?)(, added)?\n", text)
    assert named, text
    path = folder / named[1]
    assert path.is_file()
    if named[2]:
        path.write_text(path.read_text() + "\n" + text[named.end() :])
    else:
        path.write_text(text)
