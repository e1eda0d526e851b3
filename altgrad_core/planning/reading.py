"""The sections of a suite file -> :class:`~altgrad_core.planning.declaration.Suite`. Strict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from altgrad_core.planning.declaration import Axis, Contrast, Exclusion, Suite
from altgrad_core.planning.document import Document
from altgrad_core.planning.draft import SECTIONS, Assignment, assignment
from altgrad_core.planning.tune import TuneSettings
from altgrad_core.registry.problems import dotted, explain, unknown

_ModelT = TypeVar("_ModelT", bound=BaseModel)

STRUCTURE = (
    *("name", "description", "seeds", "matrix", "zip", "include", "exclude", "contrast", "tune"),
)
"""The top-level keys of a suite that are not settings of a run."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LONGEST_NAME = 100


def sections(document: Document) -> dict[str, Document]:
    """The top level of a suite file. Raises ``UserError`` for anything unknown."""
    if not isinstance(document.data, dict):
        what = "is empty" if document.data is None else "is not a mapping of sections"
        raise document.error(f"the suite {what}; it has the sections {', '.join(SECTIONS)}")
    for key in document.data:
        if key not in SECTIONS and key not in STRUCTURE:
            raise document.error(unknown("section", key, (*STRUCTURE, *SECTIONS)), (key,))
    return dict(document.items())


def read_suite(parts: Mapping[str, Document], source: str) -> Suite:
    """Read the sections of a suite, but for the contrast, which depends on overrides."""
    axes = (*_matrix(parts.get("matrix")), *_zips(parts.get("zip")))
    keys = list(chain.from_iterable(axis.keys for axis in axes))
    for key in keys:
        if keys.count(key) > 1:
            raise parts["zip"].error(f"{key} is an axis twice, in matrix and zip, or in two zips")
    seeds = _seeds(parts.get("seeds"))
    return Suite(
        name=_name(parts.get("name"), source),
        description=_description(parts.get("description")),
        source=source,
        seeds=seeds,
        base=tuple(assignment(key, parts[key]) for key in SECTIONS if key in parts),
        axes=axes,
        include=tuple(_included(item) for item in _list(parts.get("include"), "include")),
        exclude=tuple(_excluded(item) for item in _list(parts.get("exclude"), "exclude")),
        tune=_tune(parts.get("tune"), seeds),
        written={key: parts[key] for key in ("contrast", "tune") if key in parts},
    )


def read_contrast(document: Document) -> Contrast:
    """The contrast as it was declared."""
    return _settings(Contrast, "contrast", document)


def _tune(document: Document | None, seeds: tuple[int, ...]) -> TuneSettings:
    if document is None or document.data is None:
        # The default seeds, unless the suite has taken them for itself.
        free = (seed for seed in count(1000) if seed not in seeds)
        return TuneSettings(seeds=tuple(islice(free, 2)))
    tune = _settings(TuneSettings, "tune", document)
    if shared := set(tune.seeds) & set(seeds):
        raise document.error(
            f"tune.seeds: {min(shared)} is one of the suite's seeds; runs that chose a learning rate "
            "must not judge it",
            ("seeds",),
        )
    return tune


def _settings(model: type[_ModelT], section: str, document: Document) -> _ModelT:
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        problem = explain(error, model)[0]
        path = dotted((section, *problem.path))
        raise document.error(f"{path}: {problem.message}", problem.path) from error


def axis(key: str, values: Document) -> Axis:
    """The axis that gives ``key`` each of the listed values."""
    if not isinstance(values.data, list) or not values.data:
        raise values.error(f"matrix: {key} needs a list of values, got {values.data!r}")
    return Axis((key,), tuple((assignment(key, value),) for value in values.elements()))


def _name(document: Document | None, source: str) -> str:
    name = Path(source).stem if document is None else document.data
    if isinstance(name, str) and NAME.fullmatch(name) and len(name) <= LONGEST_NAME:
        return name
    if not isinstance(name, str):
        message = f"name: this is a text, and YAML reads {name!r}: put it in quotes"
    elif len(name) > LONGEST_NAME:
        message = f"name: {name[:20]}… cannot be a folder's name: it has {len(name)} characters"
    else:
        message = f"name: {name!r} cannot be a folder's name: use letters, digits, '.', '_' and '-'"
    raise (document or Document(None, source, Path())).error(message)


def _description(document: Document | None) -> str:
    if document is None or document.data is None:
        return ""
    if not isinstance(document.data, str):
        raise document.error(f"description: this is a text, got {document.data!r}")
    return " ".join(document.data.split())


def _seeds(document: Document | None) -> tuple[int, ...]:
    if document is None:
        return (0,)
    seeds = document.data
    right = isinstance(seeds, list) and seeds and all(type(s) is int and s >= 0 for s in seeds)
    if not right or len(set(seeds)) < len(seeds):
        raise document.error(
            f"seeds: a list of different whole numbers is needed, e.g. [0, 1, 2], got {seeds!r}"
        )
    return tuple(seeds)


def _matrix(document: Document | None) -> list[Axis]:
    if document is None or document.data is None:
        return []
    return [axis(key, values) for key, values in _mapping(document, "matrix").items()]


def _zips(document: Document | None) -> list[Axis]:
    if document is None or document.data is None:
        return []
    return [_zip(group) for group in document.elements()]


def _zip(group: Document) -> Axis:
    """Axes that move together: the first values of all keys, the second ones, …"""
    axes = [axis(key, values) for key, values in _mapping(group, "zip").items()]
    lengths = {one.keys[0]: len(one.rows) for one in axes}
    if not axes or len(set(lengths.values())) > 1:
        counts = ", ".join(f"{key} has {count}" for key, count in lengths.items()) or "it is empty"
        raise group.error(f"zip: its lists must be of one length: {counts}")
    rows = zip(*(one.rows for one in axes), strict=True)
    return Axis(tuple(lengths), tuple(tuple(chain.from_iterable(row)) for row in rows))


def _included(item: Document) -> tuple[Assignment, ...]:
    return tuple(assignment(key, value) for key, value in _mapping(item, "include").items())


def _excluded(item: Document) -> Exclusion:
    wanted = tuple(_leaves(_mapping(item, "exclude"), ()))
    if not wanted:
        raise item.error("exclude: this entry is empty, and would drop every cell")
    return Exclusion(wanted, item)


def _leaves(
    document: Document, path: tuple[str, ...]
) -> list[tuple[tuple[str, ...], tuple[Any, ...]]]:
    """Dotted and nested keys of an exclusion, each with the values that it lists."""
    found = []
    for key, value in document.items():
        here = (*path, *key.split("."))
        if here != ("seed",) and here[0] not in SECTIONS:
            raise value.error(f"exclude: {unknown('section', here[0], ('seed', *SECTIONS))}")
        if isinstance(value.data, dict):
            found += _leaves(value, here)
        else:
            found.append((here, tuple(item.data for item in value.elements())))
    return found


def _mapping(document: Document, what: str) -> Document:
    if not isinstance(document.data, dict):
        raise document.error(
            f"{what}: expected settings as section.key: value, got {document.data!r}"
        )
    return document


def _list(document: Document | None, what: str) -> list[Document]:
    if document is None or document.data is None:
        return []
    if not isinstance(document.data, list):
        raise document.error(f"{what}: expected a list, an entry for each of its lines")
    return document.elements()
