"""Output goes wherever it goes: narrow encodings, closed streams, and stdout kept for one document."""

from __future__ import annotations

import subprocess
import sys

import pytest

SAY = (
    "from altgrad_core._streams import safe_streams\n"
    "safe_streams()\n"
    "import sys\n"
    "print('ü → 日 \\ud83d')\n"
    "print('ü → 日 \\ud83d', file=sys.stderr)\n"
)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_replaced(encoding: str) -> None:
    command = ["env", f"PYTHONIOENCODING={encoding}", sys.executable, "-c", SAY]
    done = subprocess.run(command, capture_output=True, check=True)
    expected = "ü → 日 \ud83d".encode(encoding, "replace").decode(encoding)
    assert done.stdout.decode(encoding).strip() == expected
    assert done.stderr.decode(encoding).strip() == expected


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_the_caller_closed_take_everything(closed: str) -> None:
    command = f'exec "$0" -c "$1" {closed}'
    subprocess.run(["sh", "-c", command, sys.executable, SAY], capture_output=True, check=True)


def test_stdout_is_kept_for_what_comes_after() -> None:
    code = (
        "import os, sys\n"
        "from altgrad_core._streams import stdout_to_stderr\n"
        "print('first')\n"
        "with stdout_to_stderr():\n"
        "    print('python'); os.system('echo child'); os.write(1, b'raw\\n')\n"
        "print('last')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "first\nlast\n"
    assert sorted(done.stderr.split()) == ["child", "python", "raw"]
