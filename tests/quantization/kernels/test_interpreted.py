"""The kernels for a GPU give the reference's bits under Triton's interpreter, in one process for all of them.

With ``ALTGRAD_INTERPRETED=all``, on every pattern and setting: that takes minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import patterns
import pytest

WHAT = os.environ.get("ALTGRAD_INTERPRETED", "few")
PARTS = ("rounding", "scaled_rounding", "several_blocks", "scales", "draws", "settling")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="needs triton: pip install triton"),
    pytest.mark.timeout(0 if WHAT == "all" else 300),
]


@pytest.fixture(scope="module")
def found() -> dict[str, str | None]:
    """Of each part what went wrong."""
    script = Path(__file__).with_name("interpreted.py")
    surroundings = {**os.environ, "TRITON_INTERPRET": "1", "ALTGRAD_KERNELS": "eager"}
    surroundings["PYTHONPATH"] = str(Path(patterns.__file__).parent)
    command = [sys.executable, "-W", "ignore", str(script), WHAT]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts: dict[str, str | None] = json.loads(done.stdout)
    assert tuple(parts) == PARTS
    return parts


@pytest.mark.parametrize("part", PARTS)
def test_the_bits_are_those_of_the_reference(part: str, found: dict[str, str | None]) -> None:
    assert found[part] is None, found[part]
