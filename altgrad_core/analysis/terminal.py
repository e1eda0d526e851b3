"""The main table for the terminal: what one looks at first, in few enough columns to fit."""

from __future__ import annotations

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from altgrad_core.analysis.numbers import percent, significant, with_spread
from altgrad_core.analysis.summary import condition_table, score_of
from altgrad_core.analysis.tables import status_cell

_SCORES = {"F1 micro": "final/test/f1_micro_tuned", "F1 macro": "final/test/f1_macro_tuned"}
_NOTE = "F1 on the test split, at the threshold tuned on validation."


def summary_table(results: pd.DataFrame) -> Table:
    """One row per condition. ``results`` is what ``load_results`` gives.

    With several suites in it, each has a part of its own.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption=_NOTE, caption_justify="left")
    table.add_column("Condition", no_wrap=True)
    for title in (*_SCORES, "Samples/s", "Stalls %"):
        table.add_column(title, justify="right", min_width=8)
    table.add_column("Status", min_width=8)
    for _, suite in results.groupby("suite", sort=False):
        for _, row in condition_table(suite).iterrows():
            table.add_row(*_row(row))
        table.add_section()
    return table


def _row(row: pd.Series[float]) -> list[Text]:
    status = status_cell(str(row["status"]))
    texts = [
        str(row["condition"]),
        *(with_spread(score_of(row, metric)) for metric in _SCORES.values()),
        significant(row["samples_per_second"]),
        percent(row["stall_ratio"]),
    ]
    return [*map(Text, texts), Text(status.text, "bold red" if status.tone == "bad" else "")]
