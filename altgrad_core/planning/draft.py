"""The settings of one cell while they are put together: layers of assignments, the last wins."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from altgrad_core.errors import UserError
from altgrad_core.planning.document import Document
from altgrad_core.quantization.settings import FORMAT_KEYS, SCALING_KEYS
from altgrad_core.registry.problems import Path as SettingPath
from altgrad_core.registry.problems import dotted, unknown

SECTIONS = ("model", "data", "training", "quantization", "optimizer", "monitors", "trackers")
"""The sections of a suite that hold settings of a run."""

_LISTS = ("monitors", "trackers")
_SHORT_FORMS: dict[tuple[str, ...], str] = {
    ("optimizer",): "type",
    **{("quantization", key): "name" for key in FORMAT_KEYS},
    **{("quantization", key): "mode" for key in SCALING_KEYS},
}
"""Settings that may be a single word, and the key that the word stands for."""


@dataclass(frozen=True)
class Assignment:
    """One setting and its value. For a whole section a mapping is merged in, key by key."""

    path: tuple[str, ...]
    value: Document

    @property
    def key(self) -> str:
        """The dotted path."""
        return ".".join(self.path)

    def leaves(self) -> list[str]:
        """The dotted keys that it sets: one for each key of a section's mapping."""
        if len(self.path) > 1 or isinstance(self.value.data, _Whole):
            return [self.key]
        return [f"{self.key}.{key}" for key in self.value.data]


def assignment(key: str, value: Document) -> Assignment:
    """The assignment to a dotted key. Raises ``UserError`` if it does not begin with a section."""
    path = tuple(key.split("."))
    if path[0] not in SECTIONS or not all(path):
        known = [*SECTIONS, "seeds"] if path[0] == "seed" else SECTIONS
        raise value.error(
            f"{key}: a setting is written section.key: {unknown('section', path[0], known)}"
        )
    if len(path) == 1:
        value = _as_section(path[0], value)
    return Assignment(path, value)


def _as_section(section: str, value: Document) -> Document:
    """The piece with its short forms written out as a mapping."""
    if section in _LISTS:
        return _named(section, value)
    if value.data is None:
        return replace(value, data={})
    if isinstance(value.data, str) and (section,) in _SHORT_FORMS:
        return replace(value, data={_SHORT_FORMS[section,]: value.data})
    if not isinstance(value.data, dict):
        raise value.error(f"{section}: this section is a mapping of settings, got {value.data!r}")
    return value


def _named(section: str, value: Document) -> Document:
    """``[flips, {rank: {interval: 50}}]``, ``all`` and mappings, all as ``{name: settings}``."""
    if isinstance(value.data, dict):
        return value
    named: dict[str, Any] = {}
    lines = {value.prefix: value.lines[value.prefix]} if value.prefix in value.lines else {}
    for item in value.elements() if value.data is not None else []:
        entry = {item.data: None} if isinstance(item.data, str) else item.data
        if not isinstance(entry, dict):
            raise item.error(f"{section}: expected a name or {{name: settings}}, got {entry!r}")
        for name, settings in entry.items():
            if name in named:
                raise item.error(f"{section}: {name!r} is given twice")
            named[name] = settings
            for path, line in item.lines.items():
                if path[: len(item.prefix)] == item.prefix:
                    rest = path[len(item.prefix) :] or (name,)
                    lines[(*value.prefix, *rest)] = line
    # A list says which there are: it replaces what stood there, where a mapping is merged in.
    return replace(value, data=_Whole(named), lines=lines)


class _Whole(dict[str, Any]):
    """A section's mapping that replaces the section."""


class Draft:
    """Settings of one cell as plain data, not validated yet, and where each was written."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._layers: list[Assignment] = []

    def copy(self) -> Draft:
        """An independent copy."""
        other = Draft()
        other.values = copy.deepcopy(self.values)
        other._layers = list(self._layers)
        return other

    def assign(self, given: Assignment) -> None:
        """Put a value over what is there."""
        value = _anchored(given.path, copy.deepcopy(given.value.data), given.value.folder)
        self._layers.append(given)
        *parents, last = given.path
        if parents:
            self._descend(tuple(parents), given)[last] = value
        elif isinstance(value, _Whole):
            self.values[last] = dict(value)
        else:
            self.values.setdefault(last, {}).update(value)

    def _descend(self, path: tuple[str, ...], given: Assignment) -> dict[str, Any]:
        """The mapping at ``path``, made where it is missing."""
        here = self.values
        for depth, key in enumerate(path, start=1):
            inner = here.get(key)
            if isinstance(inner, str) and path[:depth] in _SHORT_FORMS:
                here[key] = inner = {_SHORT_FORMS[path[:depth]]: inner}
            if inner is None:
                here[key] = inner = {}
            if not isinstance(inner, dict):
                raise given.value.error(
                    f"{given.key} cannot be set: {dotted(path[:depth])} is {inner!r}, not a mapping"
                )
            here = inner
        return here

    def where(self, path: SettingPath) -> str:
        """Where the value at ``path``, or else the nearest thing around it, was written."""
        for length in range(len(path), 0, -1):
            for given in reversed(self._layers):
                if given.path == path[:length]:
                    return given.value.where()
                rest = path[len(given.path) : length]
                if given.path == path[: len(given.path)] and _holds(given.value.data, rest):
                    return given.value.where(rest)
        return self._layers[0].value.source if self._layers else "the suite"

    def error(self, path: SettingPath, message: str) -> UserError:
        """The ``UserError`` that says ``message`` about the setting at ``path``."""
        return UserError(f"{self.where(path)}: {dotted(path)}: {message}")


def _holds(data: Any, path: SettingPath) -> bool:
    for key in path:
        if isinstance(data, dict):
            if key not in data:
                return False
        elif not (isinstance(data, list) and isinstance(key, int) and key < len(data)):
            return False
        data = data[key]
    return True


def lookup(values: Mapping[str, Any], path: tuple[str, ...]) -> tuple[bool, Any]:
    """Whether there is something at ``path``, and what."""
    here: Any = values
    for key in path:
        if not isinstance(here, Mapping) or key not in here:
            return False, None
        here = here[key]
    return True, here


def same(actual: Any, wanted: Any) -> bool:
    """Whether a setting has the value asked for; a word also stands for its long form."""
    if isinstance(actual, Mapping) and isinstance(wanted, str):
        return any(actual.get(key) == wanted for key in ("name", "type", "mode"))
    return isinstance(actual, bool) == isinstance(wanted, bool) and bool(actual == wanted)


def _anchored(path: tuple[str, ...], value: Any, folder: Path) -> Any:
    """The value with ``data.path`` and a local ``model.pretrained`` made absolute."""
    if path == ("data",) and "path" in value:
        return type(value)(value, path=_absolute(value["path"], folder))
    if path[:2] == ("data", "path"):
        return _absolute(value, folder)
    if path == ("model",) and "pretrained" in value:
        return type(value)(value, pretrained=_local(value["pretrained"], folder))
    return _local(value, folder) if path == ("model", "pretrained") else value


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_absolute(item, folder) for item in value]
    if isinstance(value, dict):
        return {key: _absolute(item, folder) for key, item in value.items()}
    if not isinstance(value, str) or "://" in value or not value:
        return value
    try:
        path = (folder / Path(value).expanduser()).resolve()
        path.exists()  # the system refuses here what no path can be
        return str(path)
    except (OSError, RuntimeError, ValueError) as error:  # too long, ~nobody, a NUL
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        shown = value if len(value) <= 200 else f"{value[:100]}…{value[-60:]}"
        raise UserError(f"{shown!r} is no path that can be used: {said}") from error


def _local(value: Any, folder: Path) -> Any:
    """A folder as an absolute path; a name on the hub as it is."""
    if not isinstance(value, str) or not value:
        return value
    try:
        is_path = value.startswith((".", "/", "~")) or (folder / value).is_dir()
    except OSError:  # too long for a file: it may be a name all the same
        return value
    return _absolute(value, folder) if is_path else value
