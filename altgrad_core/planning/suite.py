"""A suite: the file that declares cells, read strictly, with the command line's overrides put over it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from pydantic import Field

from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import Settings
from altgrad_core.planning.axes import Axis, Exclusion
from altgrad_core.planning.document import Document, parse
from altgrad_core.planning.draft import Assignment
from altgrad_core.registry.problems import nearest

SHIPPED = "altgrad_suites"
"""The package whose YAML files are found by name."""


class Contrast(Settings):
    """The comparison that a suite is made for: two values of one axis."""

    axis: str = Field("optimizer.type", description="dotted key of a matrix axis")
    baseline: str = Field(description="the value to compare with")
    treatment: str = Field(description="the value that is compared")
    metric: str = Field("final/test/f1_micro_tuned", description="the metric that decides")


@dataclass(frozen=True)
class Suite:
    """A suite file with its overrides. Its settings are not validated yet: that is planning."""

    name: str
    description: str
    source: str
    """The file, as its user named it."""
    seeds: tuple[int, ...]
    base: tuple[Assignment, ...]
    """The sections of the file."""
    axes: tuple[Axis, ...]
    """Matrix axes in the order of the file, then zipped ones; the last varies fastest."""
    include: tuple[tuple[Assignment, ...], ...]
    exclude: tuple[Exclusion, ...]
    forced: tuple[Assignment, ...]
    """Overrides, put over every cell last."""
    contrast: Contrast | None
    notes: tuple[str, ...] = ()
    """What overrides changed beyond the setting that they name."""


def load_suite(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite file, or a shipped suite by its name, and apply ``key=value`` overrides.

    Raises ``UserError`` with file and line for malformed YAML, an unknown key or a wrong shape.
    """
    path, source = _find(str(path_or_name))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the suite file {source} cannot be read: {error}") from error
    return parse_suite(text, source, path.resolve().parent, overrides)


def parse_suite(text: str, source: str, folder: Path, overrides: Sequence[str] = ()) -> Suite:
    """The suite that ``text`` declares. Relative paths in it are relative to ``folder``."""
    from altgrad_core.planning.overrides import apply_override
    from altgrad_core.planning.suite_file import read_suite

    suite = read_suite(parse(text, source, folder))
    for override in overrides:
        suite = apply_override(suite, override)
    return suite


def shipped_suites() -> dict[str, Path]:
    """The suites that are installed with this package: name -> file."""
    folder = resources.files(SHIPPED)
    files = sorted(Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {file.stem: file for file in files}


def _find(given: str) -> tuple[Path, str]:
    """The file behind what the user typed, and what to call it."""
    path = Path(given).expanduser()
    if path.is_file():
        return path, given
    shipped = shipped_suites()
    if given in shipped:
        return shipped[given], f"{given}.yaml"
    names = ", ".join(shipped)
    if path.is_dir():
        raise UserError(f"{given} is a folder, not a suite file. Shipped suites: {names}.")
    near = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    guess = nearest(path.name, near)
    if guess and path.suffix:
        meant = f" Did you mean {path.parent / guess}?"
    elif guess := nearest(path.stem, shipped):
        meant = f" Did you mean the shipped suite {guess!r}? It needs no path."
    else:
        meant = ""
    raise UserError(f"there is no suite {given!r}.{meant} Shipped suites: {names}.")
