"""What a plugin module does when it is imported, seen in an interpreter of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from altgrad_core._text import plain
from altgrad_core.testing.rules import Fault

_RULE = (
    "the module of the entry point, and those of fingerprint and resample, are imported by list and plan: they "
    "import no torch, print nothing and raise nothing"
)
_PATIENCE = 60.0
_CODE = """
import importlib, json, os, sys, traceback
name, folder, path = sys.argv[1:]
sys.path[:] = json.loads(path)
for stream, descriptor in (("out", 1), ("err", 2)):
    os.dup2(os.open(os.path.join(folder, stream), os.O_WRONLY | os.O_CREAT), descriptor)
error, chain = "", []
class Finder:
    def find_spec(self, module, path=None, target=None):
        if module == "torch" and not chain:
            frame = sys._getframe()
            while frame:
                if "importlib" not in frame.f_code.co_filename and frame.f_code.co_filename != "<string>":
                    chain.append((str(frame.f_globals.get("__name__")), frame.f_lineno))
                frame = frame.f_back
            chain.append(("", 0))
sys.meta_path.insert(0, Finder())
try:
    importlib.import_module(name)
except BaseException as raised:
    error = f"{type(raised).__name__}: {raised}"
sys.stdout.flush()
sys.stderr.flush()
top = name.partition(".")[0]
theirs = [place for place in chain if place[0].partition(".")[0] == top]
by = "{}, line {}".format(*theirs[0]) if theirs else ""
with open(os.path.join(folder, "said"), "w") as file:
    json.dump({"error": error, "torch": "torch" in sys.modules, "by": by}, file)
os._exit(0)
"""


def check_imports(modules: Sequence[str]) -> None:
    """Import each module in a fresh interpreter. Raises ``Fault`` if one imports torch, prints or raises."""
    for module in dict.fromkeys(modules):
        with tempfile.TemporaryDirectory() as name:
            _check_import(module, Path(name))


def _check_import(module: str, folder: Path) -> None:
    command = [sys.executable, "-P", "-c", _CODE, module, str(folder), json.dumps(sys.path)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Fault(_RULE, f"importing {module} takes more than {_PATIENCE:g} s") from error
    if not (folder / "said").exists():
        raise Fault(_RULE, f"importing {module} ends the interpreter {plain(done.stderr, 500)}")
    said = json.loads((folder / "said").read_text())
    if said["error"]:
        raise Fault(_RULE, f"importing {module} raises {plain(said['error'], 500)}")
    if said["torch"]:
        by = f", in {said['by']}" if said["by"] else ""
        raise Fault(
            _RULE,
            f"importing {module} imports torch{by}: move what needs it into the module of the target, which "
            f"is imported when it is used",
        )
    for stream, where in (("out", "stdout"), ("err", "stderr")):
        text = (folder / stream).read_text(errors="replace").strip()
        if text:
            raise Fault(
                _RULE,
                f"importing {module} prints to {where}: {plain(text, 200)!r}: leave printing to the functions "
                f"that are called",
            )
