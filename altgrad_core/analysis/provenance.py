"""Where each run comes from, and what it was trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from altgrad_core.analysis.document import Cell, Table, cells, columns
from altgrad_core.analysis.numbers import NONE, significant
from altgrad_core.results.stored import StoredRun

SPLITS = ("train", "validation", "test")

ADDRESSES = ("https://", "http://")
"""How the location of a run begins that is not kept in a run directory."""

_LONGEST = 160
"""Characters of one fact; a longer one is cut, since it is whole in ``facts.json``."""


def provenance_row(run: StoredRun, folder: Path) -> tuple[Cell, ...]:
    """Id (a link from ``folder``), condition, seed, seconds, device, versions, git and data."""
    environment, spec = run.environment, run.spec
    device = environment.get("device_name") or environment.get("device")
    return (
        Cell(spec.id, href=directory_link(run.location, folder)),
        Cell(spec.condition),
        Cell(str(spec.seed)),
        Cell(significant(run.status.seconds) if run.status.seconds else NONE),
        Cell(str(device) if device else NONE),
        Cell(_versions(run)),
        Cell(_git(environment.get("git"))),
        Cell(", ".join(f"{k} {_cut(v, 20)}" for k, v in spec.fingerprint.items()) or NONE),
    )


def directory_link(location: str | Path, folder: Path) -> str:
    """The address, from a page in ``folder``, of a run: of its run directory, or of its own page."""
    if str(location).startswith(ADDRESSES):
        return str(location)
    place = Path(location).resolve()
    return Path(os.path.relpath(place, folder.resolve())).as_posix() + "/"


def _versions(run: StoredRun) -> str:
    """Python, the packages that compute, and the distributions that provide the plugins."""
    environment = run.environment
    found = {"python": environment.get("python"), "torch": environment.get("torch")}
    found["altgrad-bench"] = environment.get("altgrad_bench")
    packages = environment.get("packages")
    if isinstance(packages, Mapping):
        found |= {name: packages[name] for name in ("torch", "altgrad-bench") if name in packages}
    found |= run.spec.distributions
    return ", ".join(f"{name} {version}" for name, version in found.items() if version) or NONE


def _git(revision: Any) -> str:
    if isinstance(revision, Mapping):
        commit = revision.get("commit")
        if not commit:
            return NONE
        return f"{_cut(str(commit), 12)}{', with changes' if revision.get('changed') else ''}"
    return _cut(str(revision), 40) if revision else NONE


def fact_tables(facts: Sequence[Mapping[str, Any]]) -> list[Table]:
    """What the runs say about their data: facts about each split side by side, then the others.

    Where runs differ, each value is shown once.
    """
    values: dict[tuple[str, str], dict[str, None]] = {}
    for one in facts:
        for path, value in _flat(one):
            split = next((part for part in path if part in SPLITS), "")
            name = ": ".join(part for part in path if part != split).replace("_", " ")
            values.setdefault((name, split), {})[value] = None
    shown = {key: _cut("; ".join(known), _LONGEST) for key, known in values.items()}
    by_split = dict.fromkeys(name for name, split in shown if split)
    whole = [cells(name, value) for (name, split), value in shown.items() if not split]
    rows = [cells(n, *(shown.get((n, split), NONE) for split in SPLITS)) for n in by_split]
    tables = (
        Table(columns("By split", *SPLITS, numbers=SPLITS), tuple(rows)),
        Table(columns("Fact", "Value"), tuple(whole)),
    )
    return [table for table in tables if table.rows]


def _flat(
    value: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, inner in value.items():
        here = (*path, str(key))
        if isinstance(inner, Mapping):
            yield from _flat(inner, here)
        elif isinstance(inner, list):
            yield here, ", ".join(map(_text, inner)) or "none"
        else:
            yield here, _text(inner)


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: NONE}[value]
    if isinstance(value, float):
        return significant(value, 4)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
