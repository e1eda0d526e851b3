"""The main table for the terminal: what one looks at first, in as many columns as fit unbroken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from altgrad_core.analysis.numbers import percent, significant, with_spread
from altgrad_core.analysis.summary import condition_table, score_of
from altgrad_core.analysis.tables import status_cell

_MICRO, _MACRO = "final/test/f1_micro_tuned", "final/test/f1_macro_tuned"
_HEADINGS = ("Condition", "F1 micro", "F1 macro", "Samples/s", "Stalls %", "Status")
_DROPPED = ("Stalls %", "F1 macro", "Samples/s")
"""Columns that go first where there is no room for all, in this order."""
_NOTE = "F1 on the test split, at the threshold tuned on validation."
_SHORTEST = 12
"""Characters that a condition keeps at least; the middle of a longer one is cut."""


@dataclass(frozen=True)
class SummaryTable:
    """One row per condition, a part for each suite.

    In a window of 45 characters or more no heading or number is broken or cut: columns are dropped
    until the rest fits, then conditions are shortened in the middle.
    """

    parts: tuple[tuple[tuple[Text, ...], ...], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The widest table that fits."""
        headings = list(_HEADINGS)
        for dropped in (None, *_DROPPED):
            if dropped is not None:
                headings.remove(dropped)
            table = self.table(headings)
            if Measurement.get(console, options.update(width=10_000), table).maximum <= (
                options.max_width
            ):
                break
        else:
            over = Measurement.get(console, options.update(width=10_000), table).maximum
            longest = max((row[0].cell_len for part in self.parts for row in part), default=0)
            room = max(_SHORTEST, longest - (over - options.max_width))
            table = self.table(headings, room)
        if len(headings) < len(_HEADINGS):
            table.caption = f"{_NOTE} The window is too narrow for every column."
        yield table

    def table(self, headings: Sequence[str], room: int | None = None) -> Table:
        """These columns; ``room`` is how long a condition may be."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False, caption=_NOTE, caption_justify="left")
        for heading in headings:
            left = heading in ("Condition", "Status")
            table.add_column(heading, justify="left" if left else "right", no_wrap=True)
        for part in self.parts:
            for row in part:
                texts = dict(zip(_HEADINGS, row, strict=True))
                texts["Condition"] = _shortened(row[0], room)
                table.add_row(*(texts[heading] for heading in headings))
            table.add_section()
        return table


def summary_table(results: pd.DataFrame) -> SummaryTable:
    """One row per condition. ``results`` is what ``load_results`` gives.

    With several suites in it, each has a part of its own.
    """
    return SummaryTable(
        tuple(
            tuple(_row(row) for _, row in condition_table(suite).iterrows())
            for _, suite in results.groupby("suite", sort=False)
        )
    )


def _row(row: pd.Series[float]) -> tuple[Text, ...]:
    status = status_cell(str(row["status"]))
    texts = [
        str(row["condition"]),
        with_spread(score_of(row, _MICRO)),
        with_spread(score_of(row, _MACRO)),
        significant(row["samples_per_second"]),
        percent(row["stall_ratio"]),
    ]
    return (*map(Text, texts), Text(status.text, "bold red" if status.tone == "bad" else ""))


def _shortened(text: Text, room: int | None) -> Text:
    if room is None or text.cell_len <= room:
        return text
    head = (room - 1) // 2
    return Text(f"{text.plain[:head]}…{text.plain[len(text.plain) - (room - 1 - head) :]}")
