"""``--set key=value``: settings from the command line, put over a suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from altgrad_core.errors import UserError
from altgrad_core.planning.declaration import Axis, Suite
from altgrad_core.planning.document import Document, parse
from altgrad_core.planning.draft import Assignment, assignment, lookup, same
from altgrad_core.planning.reading import STRUCTURE, axis


@dataclass(frozen=True)
class Override:
    """One ``key=value`` as typed."""

    key: str
    value: Document

    @property
    def structural(self) -> bool:
        """Whether it replaces a part of the file (``seeds``, ``include``, …) and not a setting."""
        return self.key in STRUCTURE or self.key.startswith(("contrast.", "tune."))


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """Read ``key=value`` texts; the value is YAML. Raises ``UserError``."""
    expected = "section.key=value, e.g. --set training.max_steps=50"
    return [_parsed(text, "--set", expected) for text in texts]


def parse_settings(texts: Sequence[str], option: str) -> dict[str, Any]:
    """Settings of a plugin from ``key=value`` texts of an option; ``a.b=value`` goes into the mapping ``a``.

    Raises ``UserError``.
    """
    found: dict[str, Any] = {}
    for given in (_parsed(text, option, f"{option} KEY=VALUE") for text in texts):
        *outer, last = given.key.split(".")
        place = found
        for key in outer:
            inner = place.setdefault(key, {})
            if not isinstance(inner, dict):
                raise UserError(f"{given.value.source}: {key} is already given as {inner!r}")
            place = inner
        place[last] = given.value.data
    return found


def _parsed(text: str, option: str, expected: str) -> Override:
    key, equals, value = text.partition("=")
    source = f"{option} {text}"
    if not equals or not key.strip():
        raise UserError(f"{source}: expected {expected}")
    try:
        folder = Path.cwd()
    except OSError as error:
        raise UserError("the current folder does not exist any more: go to another one") from error
    document = parse(value, source, folder)
    return Override(key.strip(), replace(document, lines={}))


def restructured(parts: dict[str, Document], overrides: Sequence[Override]) -> dict[str, Document]:
    """The sections of a suite file with whole parts replaced."""
    parts = dict(parts)
    for override in overrides:
        section, _, inner = override.key.partition(".")
        if override.structural and inner:
            old = parts.get(section)
            data = {**(old.data if old and isinstance(old.data, dict) else {})}
            parts[section] = replace(override.value, data={**data, inner: override.value.data})
        elif override.structural:
            parts[section] = override.value
    return parts


def overridden(suite: Suite, override: Override) -> Suite:
    """The suite with one setting changed. Where that touches an axis, a note says so."""
    if override.key.startswith("matrix."):
        return _with_axis(suite, override.key.removeprefix("matrix."), override.value)
    given = assignment(override.key, override.value)
    if any(override.key in axis_.keys for axis_ in suite.axes):
        return _axis_replaced(suite, given)
    touched = [key for key in suite.axis_keys() if any(_nested(key, own) for own in given.leaves())]
    note = f"{override.value.source} holds in every cell, over the axis {', '.join(touched)}"
    return replace(
        suite,
        forced=(*suite.forced, given),
        notes=(*suite.notes, note) if touched else suite.notes,
    )


def _nested(one: str, other: str) -> bool:
    """Whether one of the dotted keys is the other or lies inside it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _with_axis(suite: Suite, key: str, values: Document) -> Suite:
    """The suite with a matrix axis set; the old one of that key is replaced."""
    new = axis(key, values)
    if all(key not in old.keys for old in suite.axes):
        return replace(suite, axes=(*suite.axes, new))
    if any(key in old.keys and len(old.keys) > 1 for old in suite.axes):
        raise values.error(f"{key} is zipped with others in {suite.source}; set zip as a whole")
    return replace(suite, axes=tuple(new if key in old.keys else old for old in suite.axes))


def _axis_replaced(suite: Suite, given: Assignment) -> Suite:
    """The suite with the values of an axis replaced by one value, or by a list of them."""
    values = [assignment(given.key, item) for item in given.value.elements()]
    if not values:
        raise given.value.error(f"{given.key} needs at least one value")
    axes = tuple(
        _rows_replaced(old, given, values) if given.key in old.keys else old for old in suite.axes
    )
    include = tuple(row for row in suite.include if _kept(row, given.path, values))
    notes = [f"{given.value.source} replaces the values of the axis {given.key}"]
    if dropped := len(suite.include) - len(include):
        notes.append(f"{given.value.source} drops {dropped} of the included cells")
    base = (*suite.base, values[0]) if len(values) == 1 else suite.base
    return replace(suite, axes=axes, include=include, base=base, notes=(*suite.notes, *notes))


def _rows_replaced(old: Axis, given: Assignment, values: list[Assignment]) -> Axis:
    if len(old.keys) == 1:
        return Axis(old.keys, tuple((value,) for value in values))
    if len(values) == 1:
        values = values * len(old.rows)
    if len(values) != len(old.rows):
        raise given.value.error(
            f"{given.key} is zipped with {', '.join(key for key in old.keys if key != given.key)}: "
            f"give one value, or {len(old.rows)}"
        )
    rows = (
        tuple(value if one.path == given.path else one for one in row)
        for row, value in zip(old.rows, values, strict=True)
    )
    return Axis(old.keys, tuple(rows))


def _kept(row: tuple[Assignment, ...], path: tuple[str, ...], values: list[Assignment]) -> bool:
    """Whether an included cell leaves ``path`` alone or gives it one of ``values``."""
    for given in row:
        inner = path[len(given.path) :]
        there, value = (True, given.value.data) if not inner else lookup(given.value.data, inner)
        if given.path == path[: len(given.path)] and there:
            return any(same(value, option.value.data) for option in values)
    return True
