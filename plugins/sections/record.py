"""What the runs were trained on, where each comes from, and how to repeat them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from altgrad_core.analysis.words import NONE, percent, significant
from altgrad_core.interfaces.blocks import Block, Bullets, Code, Paragraph, Shown, Table, table
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.shared import BuiltIn, planned, to_run

SPLITS = ("train", "validation", "test")
_ORIGIN = {"device": "Device", "threads": "Threads", "versions": "Versions", "fingerprint": "Data"}
"""Columns of the table of runs that say where a run comes from -> what they are called."""
_DIGEST = re.compile(r"[0-9a-f]{32,}")
_DIGITS = 24
"""Characters of a digest that are shown."""
_LONGEST = 200
_OFTEN = 0.2
"""A share of texts at the length limit above which the reader is told."""


class Data(BuiltIn):
    """Facts about the data, as the tasks recorded them."""

    title = "Data"

    def build(self, found: Findings) -> Sequence[Block]:
        if not found.facts:
            return [Paragraph("No run has recorded facts about its data yet.")]
        blocks: list[Block] = [Paragraph(text) for text in _warnings(found.facts)]
        return [*blocks, *_tables(found.facts)]


class Provenance(BuiltIn):
    """One row per run."""

    title = "Provenance"
    always = True

    def build(self, found: Findings) -> Sequence[Block]:
        runs = planned(found)
        runs = runs[runs["directory"] != ""]
        if runs.empty:
            return [Paragraph("There are no run directories yet.")]
        shared, told = _shared(runs)
        shown: list[tuple[str, Shown]] = [
            ("Run", lambda row: to_run(row["id"], row["directory"])),
            ("Condition", "condition"),
            ("Seed", "seed"),
            ("Time (s)", lambda row: significant(row["seconds"]) if row["seconds"] else NONE),
            *((title, _known(name)) for name, title in _ORIGIN.items() if name not in shared),
        ]
        total = f"{significant(float(runs['seconds'].sum()))} seconds in all."
        words = ("Condition", "Device", "Versions", "Data")
        blocks: list[Block] = [table(runs, shown, total, words=words)]
        return [Bullets(told), *blocks] if told else blocks


def _known(name: str) -> Shown:
    return lambda row: _fact(row[name])


def _shared(runs: pd.DataFrame) -> tuple[set[str], tuple[str, ...]]:
    """The facts of where runs come from that are the same for all, and a sentence for each."""
    shared = {name for name in _ORIGIN if runs[name].nunique(dropna=False) == 1}
    values = {name: _fact(runs[name].iloc[0]) for name in _ORIGIN if name in shared}
    told = (f"{_ORIGIN[n]} of all runs: {v}" for n, v in values.items() if v != NONE)
    return shared, tuple(told)


def _fact(value: Any) -> str:
    """A recorded fact in words: JSON objects as ``name value``, long digests cut."""
    if value is None or value == "" or value != value:
        return NONE
    if isinstance(value, str) and value.startswith("{"):
        known = json.loads(value)
        return ", ".join(f"{name} {_short(str(item))}" for name, item in known.items()) or NONE
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short(text: str) -> str:
    return text[:_DIGITS] if _DIGEST.fullmatch(text) else text


class Repeat(BuiltIn):
    """The commands."""

    title = "How to repeat"
    always = True

    def build(self, found: Findings) -> Sequence[Block]:
        if not found.commands:
            return [Paragraph("No plan.json with the command was kept.")]
        text = (
            "The same command resumes an unfinished suite: it runs only what is missing. Each run's "
            "directory has its whole settings in spec.yaml."
        )
        return [*(Code(command) for command in found.commands), Paragraph(text)]


def _warnings(facts: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know of the data, before the numbers: texts that the model did not see whole.

    Read from two facts that a task of texts may give by split: ``examples`` and, of these,
    ``examples_at_max_length``.
    """
    for one in facts.values():
        at_limit, examples = (one.get(key, {}) for key in ("examples_at_max_length", "examples"))
        shares = {s: n / examples[s] for s, n in at_limit.items() if examples.get(s)}
        if shares.get("train", 0.0) > _OFTEN:
            parts = ", ".join(f"{percent(share)} % of {split}" for split, share in shares.items())
            yield (
                f"Many texts reach the length limit ({parts}) and were cut at "
                f"{one.get('max_length', 'it')} tokens: what is said about this task is said about the "
                "beginnings of texts. More are read with a larger model.max_length."
            )


def _tables(facts: Mapping[str, Any]) -> list[Table]:
    """Facts about each split side by side, then the others."""
    by_split: dict[str, dict[str, str]] = {}
    whole: list[dict[str, str]] = []
    told = next(iter(facts.values())) if len(facts) == 1 else facts  # one task needs no name
    for path, value in _flat(told):
        split = next((part for part in path if part in SPLITS), "")
        name = ": ".join(part for part in path if part != split).replace("_", " ")
        if split:
            row = by_split.setdefault(name, {"name": name, **dict.fromkeys(SPLITS, NONE)})
            row[split] = _text(value)
        else:
            whole.append({"name": name, "value": _text(value)})
    tables = (
        table(by_split.values(), [("By split", "name"), *((one, one) for one in SPLITS)]),
        table(whole, [("Fact", "name"), ("Value", "value")], words=("Value",)),
    )
    return [one for one in tables if one.rows]


def _flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, (*path, str(key)))
    else:
        yield path, value


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: NONE}[value]
    if isinstance(value, float):
        return significant(value, 4)
    if isinstance(value, list | tuple):
        text = ", ".join(map(_text, value)) or "none"
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
