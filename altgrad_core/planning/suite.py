"""Finding and loading suites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from math import prod
from pathlib import Path

from altgrad_core._axis import OPTIMIZER_AXIS, meant
from altgrad_core.errors import UserError
from altgrad_core.planning.declaration import Contrast, Suite
from altgrad_core.planning.document import Document, parse
from altgrad_core.planning.overrides import overridden, parse_overrides, restructured
from altgrad_core.planning.reading import read_contrast, read_suite, sections
from altgrad_core.registry.problems import nearest, unknown

__all__ = ["Contrast", "Suite", "find_suite", "load_suite", "parse_suite", "shipped_suites"]

_SHIPPED = "altgrad_suites"
_MOST_CELLS = 10_000


def load_suite(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite file, or a shipped suite by its name, and apply ``key=value`` overrides.

    Relative paths in the file are relative to its folder, those in overrides to the current one.
    Raises ``UserError``, with file and line, for malformed YAML, an unknown key or a wrong shape.
    """
    given = str(path_or_name)
    try:
        path, source = find_suite(given)
        text = path.read_text(encoding="utf-8")
        folder = path.resolve().parent
    except (OSError, ValueError, RuntimeError) as error:  # also NUL, ~nobody
        if isinstance(error, UserError):
            raise
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        shown = given if len(given) <= 200 else f"{given[:100]}…{given[-60:]}"
        raise UserError(f"the suite file {shown!r} cannot be read: {said}") from error
    return parse_suite(text, source, folder, overrides)


def parse_suite(text: str, source: str, folder: Path, overrides: Sequence[str] = ()) -> Suite:
    """The suite that ``text`` declares. Raises as :func:`load_suite`."""
    given = parse_overrides(overrides)
    parts = restructured(sections(parse(text, source, folder)), given)
    suite = read_suite(parts, source)
    for override in given:
        if not override.structural:
            suite = overridden(suite, override)
    _refuse_too_many(suite)
    return _with_contrast(suite, parts.get("contrast"), changed=bool(given))


def shipped_suites() -> dict[str, Path]:
    """The suites that come with the package: name -> file."""
    spec = find_spec(_SHIPPED)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.yaml"))]
    return {file.stem: file for file in files}


def find_suite(given: str) -> tuple[Path, str]:
    """The file behind what the user typed, and what to call it. Raises ``UserError`` if there is none."""
    path = Path(given).expanduser()
    if path.is_file():
        return path, given
    shipped = shipped_suites()
    if given in shipped:
        return shipped[given], f"{given}.yaml"
    names = ", ".join(shipped)
    if path.is_dir():
        raise UserError(f"{given} is a folder, not a suite file. Shipped suites: {names}.")
    beside = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    meant = ""
    if path.suffix and (guess := nearest(path.name, beside)):
        meant = f" Did you mean {path.parent / guess}?"
    elif guess := nearest(path.stem, shipped):
        meant = f" Did you mean {guess!r}, which needs no path?"
    raise UserError(f"there is no suite {given!r}.{meant} Shipped suites: {names}.")


def described_suites() -> list[dict[str, str]]:
    """The suites that come with the package: name and description of each."""
    found = {name: load_suite(path) for name, path in shipped_suites().items()}
    return [{"name": name, "description": suite.description} for name, suite in found.items()]


def _refuse_too_many(suite: Suite) -> None:
    """Count the cells, exclusions not looked at, before any is made."""
    cells = (prod(len(axis.rows) for axis in suite.axes) + len(suite.include)) * len(suite.seeds)
    if cells > _MOST_CELLS:
        raise UserError(
            f"{suite.source}: matrix and seeds make {cells:,} cells, and a suite may have at most "
            f"{_MOST_CELLS:,}: take axes or values away, or split it."
        )


def _with_contrast(suite: Suite, declared: Document | None, *, changed: bool) -> Suite:
    """The suite with the declared contrast, or the usual one where its axis has two values."""
    if declared is None or declared.data is None:
        values = suite.values(OPTIMIZER_AXIS) if OPTIMIZER_AXIS in suite.axis_keys() else []
        if len(values) != 2:
            return suite
        contrast = Contrast(axis=OPTIMIZER_AXIS, baseline=values[0], treatment=values[1])
        return replace(suite, contrast=contrast)
    contrast = read_contrast(declared)
    values = suite.values(contrast.axis)
    sides = {side: meant(getattr(contrast, side), values) for side in ("baseline", "treatment")}
    contrast = contrast.model_copy(update=sides)
    for side in ("axis", "baseline", "treatment"):
        value = getattr(contrast, side)
        known = suite.axis_keys() if side == "axis" else values
        if value in known:
            continue
        fault = f"contrast.{side}: {unknown('axis' if side == 'axis' else 'value', value, known)}"
        if not changed:
            raise declared.error(fault, (side,))
        return replace(suite, notes=(*suite.notes, f"no contrast is reported. {fault}"))
    return replace(suite, contrast=contrast)
