"""``altgrad-bench compare A B``: two sets of results, as a table, a document and files.

The numbers are made in :mod:`~altgrad_core.analysis.changes`, the sentences in
:mod:`~altgrad_core.analysis.compare_words`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table as TerminalTable
from rich.text import Text

from altgrad_core._files import write_text
from altgrad_core.analysis.changes import METRICS, SPEED, Change, SetComparison, find_changes
from altgrad_core.analysis.compare_words import sentences
from altgrad_core.analysis.document import (
    Block,
    Bullets,
    Cell,
    Document,
    Paragraph,
    Section,
    Table,
    columns,
)
from altgrad_core.analysis.html import render_html
from altgrad_core.analysis.markdown import render_markdown
from altgrad_core.analysis.numbers import MINUS, NONE, percent, score, significant
from altgrad_core.analysis.paired import PairedSummary
from altgrad_core.errors import UserError
from altgrad_core.results.sources import Results, read_sources
from altgrad_core.results.stored import StoredSuite

_SHOWN = "final/test/f1_micro_tuned"
"""The score of the terminal's table; the other metrics are in the files."""
_INTERVAL = "95\N{NO-BREAK SPACE}% interval"
_HOLM = "p, Holm"
_RULE = (
    "Differences are B − A, paired by seed; every metric is better when larger. The interval is that "
    "of the paired t test, one condition by itself. p, Holm: its p, adjusted over the conditions of "
    "its table, and not over the tables. p, sign flip: the exact test, not adjusted."
)


def compare_results(
    a: Results, b: Results, *, names: tuple[str, str] | None = None
) -> SetComparison:
    """Read two sets of results (folders, or W&B projects) and compare them.

    ``names`` are what they are called; the sources themselves unless given. Raises ``UserError``
    where there are no results, or none in common.
    """
    called = names if names is not None else (_name(a, "A"), _name(b, "B"))
    return compare(read_sources(a), read_sources(b), called)


def compare(
    a: Sequence[StoredSuite], b: Sequence[StoredSuite], names: tuple[str, str] = ("A", "B")
) -> SetComparison:
    """Compare two sets of suites that were read already. Raises ``UserError`` if no run is in both."""
    found = find_changes(a, b, names)
    return replace(found, notes=(*sentences(found), *found.notes))


def comparison_table(found: SetComparison) -> TerminalTable:
    """For the terminal: a row per condition, with the main score and the speed."""
    note = f"A: {found.names[0]}, B: {found.names[1]}. Differences are B − A, paired by seed."
    table = TerminalTable(box=SIMPLE_HEAD, pad_edge=False, caption=note, caption_justify="left")
    table.add_column("Condition", no_wrap=True)
    for title in ("Pairs", "Identical", "Δ F1 micro", _INTERVAL, _HOLM, "Samples/s, B/A"):
        table.add_column(title, justify="right")
    scored = {change.condition: change for change in found.of(_SHOWN)}
    speeds = {change.condition: change for change in found.of(SPEED)}
    for condition in found.conditions:
        pairs = [pair for pair in found.pairs if pair.condition == condition]
        row = [condition, str(len(pairs)), str(sum(pair.identical for pair in pairs))]
        row += [*_scored(scored.get(condition)), _ratio(speeds.get(condition))]
        table.add_row(*map(Text, row))
    return table


def comparison_document(found: SetComparison) -> Document:
    """The whole comparison: what is to be known, and a table per metric."""
    a, b = found.names
    opening: list[Block] = [
        Paragraph(f"A is {a}; B is {b}.", lead=True),
        Bullets(found.notes),
        Paragraph(_RULE),
    ]
    sections = [
        Section(METRICS[metric], [_metric_table(found, metric)]) for metric in found.metrics
    ]
    for name, only in zip(("A", "B"), found.only, strict=True):
        if only:
            sections.append(Section(f"In {name} alone", [Bullets(only)]))
    return Document(f"{b} against {a}", opening, sections)


def write_comparison(found: SetComparison, folder: Path) -> tuple[Path, ...]:
    """Write ``comparison.md``, ``.html`` and ``.csv`` (not rounded) into ``folder``; their paths.

    Raises ``UserError`` if the disk refuses them.
    """
    document = comparison_document(found)
    texts = {
        "comparison.md": render_markdown(document),
        "comparison.html": render_html(document),
        "comparison.csv": found.frame().to_csv(index=False),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_text(folder / name, text)
    except OSError as error:
        reason = f"The comparison cannot be written to {folder}: {error.strerror}."
        raise UserError(reason) from error
    return tuple(folder / name for name in texts)


def _name(results: Results, otherwise: str) -> str:
    match results:
        case str() | Path():
            return str(results)
        case StoredSuite():
            return results.source or str(results.path)
        case _:
            return ", ".join(map(str, results)) or otherwise


def _metric_table(found: SetComparison, metric: str) -> Table:
    numbers = (
        "Pairs",
        "A",
        "B",
        "B − A",
        "std",
        _INTERVAL,
        "p, t",
        _HOLM,
        "p, sign flip",
        "B better",
    )
    head = columns("Condition", *numbers, numbers=numbers)
    return Table(head, tuple(_row(change) for change in found.of(metric)))


def _row(change: Change) -> tuple[Cell, ...]:
    s, speed = change.summary, change.metric == SPEED
    texts = [
        change.condition,
        str(s.n),
        _value(change.a.mean, speed=speed),
        _value(change.b.mean, speed=speed),
        _value(s.mean, speed=speed, signed=True),
        _value(s.std, speed=speed),
        _interval(s, speed=speed),
        *(significant(p) for p in (s.t_p, change.adjusted_p, s.sign_flip_p)),
        f"{s.improved} of {s.n}",
    ]
    return tuple(map(Cell, texts))


def _scored(change: Change | None) -> list[str]:
    """Difference, interval and p of the main score."""
    if change is None:
        return [NONE] * 3
    s = change.summary
    difference = _value(s.mean, speed=False, signed=True)
    return [difference, _interval(s, speed=False), significant(change.adjusted_p)]


def _ratio(change: Change | None) -> str:
    """How much faster B is, from the means over the pairs."""
    if change is None or not change.a.mean > 0:
        return NONE
    ratio = change.b.mean / change.a.mean - 1
    return f"{'+' if ratio > 0 else ''}{percent(ratio)} %"


def _interval(summary: PairedSummary, *, speed: bool) -> str:
    if math.isnan(summary.low):
        return NONE
    ends = (_value(end, speed=speed, signed=True) for end in (summary.low, summary.high))
    return " to ".join(ends)


def _value(value: float, *, speed: bool, signed: bool = False) -> str:
    if not speed:
        return score(value, signed=signed)
    text = significant(value, 4)
    plain = text in (NONE, "0") or text.startswith(MINUS)
    return f"+{text}" if signed and not plain else text
