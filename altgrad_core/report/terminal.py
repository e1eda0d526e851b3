"""A report's tables for the terminal: as many columns as fit unbroken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from altgrad_core.analysis.frames import SPEED, score_columns
from altgrad_core.analysis.words import Spread, metric_label, significant, status, with_spread
from altgrad_core.interfaces.blocks import Shown, Table, table
from altgrad_core.interfaces.section import Findings
from altgrad_core.report.document import to_show

_SHORTEST = 12
"""Characters that a row's name keeps at least; the middle of a longer one is cut."""
_SCORES = 3
"""Scores that the terminal has room for."""
_STYLES = {"bad": "bold red", "quiet": "dim", "plain": ""}


@dataclass(frozen=True)
class TerminalTable:
    """A table of blocks. No heading or number is broken or cut: columns go, from the right, until the
    rest fits, but for those whose title is in ``keep``; then the names of rows are shortened.
    """

    table: Table
    keep: tuple[str, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The widest table that fits."""
        table = to_show(self.table)
        places = list(range(len(table.columns)))
        loose = [p for p in places[1:] if table.columns[p].title not in self.keep]
        free = options.update(width=10_000)
        note, room = table.caption, None
        while (
            width := Measurement.get(console, free, _rich(table, places)).maximum
        ) > options.max_width:
            if not loose:
                longest = max((len(row[0].text) for row in table.rows), default=0)
                room = max(_SHORTEST, longest - (width - options.max_width))
                break
            places.remove(loose.pop())
            note = f"{table.caption} The window is too narrow for every column.".strip()
        yield _rich(table, places, room, note)


def _rich(
    table: Table, places: Sequence[int], room: int | None = None, note: str = ""
) -> RichTable:
    made = RichTable(box=SIMPLE_HEAD, pad_edge=False, caption=Text(note), caption_justify="left")
    for place in places:
        column = table.columns[place]
        made.add_column(
            Text(column.title), justify="right" if column.numeric else "left", no_wrap=True
        )
    for row in table.rows:
        cells = [Text(row[place].text, _STYLES[row[place].tone]) for place in places]
        made.add_row(_shortened(cells[0], room), *cells[1:])
    return made


def _shortened(text: Text, room: int | None) -> Text:
    if room is None or text.cell_len <= room:
        return text
    head = (room - 1) // 2
    return Text(f"{text.plain[:head]}…{text.plain[len(text.plain) - (room - 1 - head) :]}")


def main_table(found: Findings) -> TerminalTable:
    """A row per condition: its status, the primary metric and a few others, its speed."""
    scores = [name for name in score_columns(found.metrics) if name in found.conditions][:_SCORES]
    if found.question is not None and found.question.metric in found.conditions:
        scores = list(dict.fromkeys([found.question.metric, *scores]))[:_SCORES]
    shown: list[tuple[str, Shown]] = [
        ("Condition", "condition"),
        ("Status", status),
        *((metric_label(found, name), _scores(name)) for name in scores),
        ("Samples/s", lambda row: significant(row[SPEED])),
    ]
    return TerminalTable(
        table(found.conditions, shown, words=("Status",)), keep=("Status", shown[2][0])
    )


def _scores(name: str) -> Shown:
    return lambda r: with_spread(Spread(r[name], r[f"{name} std"], r[f"{name} n"]))
