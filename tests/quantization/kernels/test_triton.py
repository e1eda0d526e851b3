"""The kernels for a GPU, without one: under Triton's interpreter they give the reference's bits, and they compile.

With ``ALTGRAD_INTERPRETED=all``, on every pattern and setting: that takes minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import patterns
import pytest

WHAT = os.environ.get("ALTGRAD_INTERPRETED", "few")
PARTS = (
    *("rounding", "scaled_rounding", "codes", "layouts", "tables", "tables_at_scales"),
    *(
        "epilogues",
        "several_blocks",
        "tables_of_other_inputs",
        "scales",
        "draws",
        "settling",
        "manifold",
    ),
    "flips",
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="needs triton: pip install triton"),
    pytest.mark.timeout(0 if WHAT == "all" else 600),
]


KERNELS = {
    *("_round", "_fill", "_amax", "_scales", "_fit", "_look", "_finish", "_in_force"),
    *("_survey", "_level", "_before", "_after", "_flips", "_turn", "_epilogue"),
}


def said(script: str, *arguments: str, **variables: str) -> Any:
    """What a script beside this file prints."""
    path = Path(__file__).with_name(script)
    found = {"PYTHONPATH": str(Path(patterns.__file__).parent)}
    command = [sys.executable, "-W", "ignore", str(path), *arguments]
    surroundings = {**os.environ, **found, **variables}
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found() -> dict[str, str | None]:
    """Of each part what went wrong."""
    parts = said("interpreted.py", WHAT, TRITON_INTERPRET="1", ALTGRAD_KERNELS="eager")
    assert tuple(parts) == PARTS
    return dict(parts)


@pytest.mark.parametrize("part", PARTS)
def test_the_bits_are_those_of_the_reference(part: str, found: dict[str, str | None]) -> None:
    assert found[part] is None, found[part]


def test_machine_code_is_made_of_every_kernel(tmp_path: Path) -> None:
    """The interpreter takes what the compiler does not."""
    assert set(said("assembled.py", TRITON_CACHE_DIR=str(tmp_path))) == KERNELS
