"""Writing a package with one plugin: :func:`write_package`."""

from __future__ import annotations

import keyword
import re
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import CONTRACT, Kind
from altgrad_core.registry.catalog import catalog
from altgrad_core.registry.hookspecs import HOOKS

_NAME = re.compile(r"[a-z](?:[a-z0-9]|[-_](?=[a-z0-9]))*")
_LONGEST = 40
"""So that the formatter has nothing to say of the longest line with a name in it."""
_FOLDERS = ("build", "conftest", "dist", "setup", "tests")
"""What a folder of this name beside pyproject.toml is taken for."""
_RUNS: Mapping[Kind, str] = {
    "format": "altgrad-bench run smoke --set 'quantization.format=[bf16,{name}]'",
    "optimizer": "altgrad-bench run smoke --set 'optimizer.type=[adamw,{name}]'",
    "monitor": "altgrad-bench run smoke --set 'monitors=[{name}]'",
    "task": "altgrad-bench run suite.yaml",
    "section": "altgrad-bench run smoke",
    "executor": "altgrad-bench run smoke --executor {name}",
    "tracker": "altgrad-bench run smoke --set 'trackers=[{name}]'",
}


def write_package(kind: Kind, name: str, into: Path) -> Path:
    """Write a package called ``name`` that offers a plugin of that name, into a new folder; its path.

    Raises ``UserError``, and writes nothing, where the name will not do or is taken.
    """
    if wrong := _wrong(kind, name) or _taken(kind, name, into):
        raise UserError(wrong)
    module = name.replace("-", "_")
    words = {
        **{"name": name, "module": module, "kind": kind, "hook": HOOKS[kind]},
        **{"class_name": _class_name(kind, module), "contract": CONTRACT},
        **{"run": run_command(kind, name), "article": "an" if kind[0] in "aeiou" else "a"},
    }
    places = {
        **{"pyproject.toml": "pyproject.toml", "README.md": "README.md", "gitignore": ".gitignore"},
        **{"check.yml": ".github/workflows/check.yml", "__init__.py": f"{module}/__init__.py"},
        "test_contract.py": "tests/test_contract.py",
    }
    texts = {target: _rendered("package", source, words) for source, target in places.items()}
    for source in _templates(kind):
        target = source if source == "suite.yaml" else f"{module}/{source}"
        texts[target] = _rendered(kind, source, words)
    folder = into / name
    for target, text in texts.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).write_text(text, encoding="utf-8")
    return folder


def _class_name(kind: Kind, module: str) -> str:
    """``MyPositFormat``; never the name of the class that it is made of."""
    words = [word.capitalize() for word in module.split("_")]
    if words[-1] != kind.capitalize():
        words.append(kind.capitalize())
    return "".join(words if len(words) > 1 else ["My", *words])


def run_command(kind: Kind, name: str) -> str:
    """The command line that uses the plugin."""
    return _RUNS[kind].format(name=name)


def next_steps(kind: Kind, name: str, folder: Path) -> list[str]:
    """What to type next, in order."""
    run = run_command(kind, name)
    return [
        f"pip install -e {shlex.quote(str(folder))}",
        f"altgrad-bench check {name}",
        run.replace("suite.yaml", shlex.quote(str(folder / "suite.yaml"))),
    ]


def _wrong(kind: Kind, name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        return (
            f"{name!r} cannot be the name of a package and of {kind}s: use lower-case letters, digits and "
            f"single '-' or '_' between them, beginning with a letter, at most {_LONGEST} in all: my-{kind}."
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        return f"{name!r} would be the Python module {module}, which Python keeps for itself: try my-{name}."
    if module in _FOLDERS:
        return (
            f"a folder {module} beside pyproject.toml is taken for something else: try my-{name}."
        )
    return ""


def _taken(kind: Kind, name: str, into: Path) -> str:
    for entry in catalog().registered:
        if (entry.kind, entry.offer.name) == (kind, name):
            return (
                f"there is {kind} {name!r} already, offered by {entry.origin}: choose another name."
            )
    module = name.replace("-", "_")
    if installed := _version(name):
        return (
            f"a distribution {name} {installed} is installed already, and pip would put {name!r} in its "
            f"place: choose another name."
        )
    if find_spec(module) is not None:
        return f"a Python module {module} is installed already, and {name!r} would hide it: choose another name."
    if (into / name).exists():
        return f"{into / name} is there already: choose another name, or another place with --into."
    if into.exists() and not into.is_dir():
        return f"--into {into} is a file: name a folder."
    return ""


def _version(name: str) -> str:
    """That of the installed distribution of this name, however it is spelt; empty if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _templates(kind: str) -> list[str]:
    found = files("altgrad_core.scaffold").joinpath("templates", kind).iterdir()
    return sorted(one.name.removesuffix(".jinja") for one in found)


def _rendered(group: str, source: str, words: Mapping[str, str]) -> str:
    place = files("altgrad_core.scaffold").joinpath("templates", group, f"{source}.jinja")
    made = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return made.from_string(place.read_text(encoding="utf-8")).render(words)
