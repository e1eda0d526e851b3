"""Task performance: which conditions score best, as plainly as the numbers allow."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from altgrad_core.analysis.document import (
    Block,
    HeatMap,
    Paragraph,
    ParallelCoordinates,
    Section,
    Table,
    cells,
)
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.groups import settings_of
from altgrad_core.analysis.numbers import NONE, Spread, counted, score, spread, with_spread
from altgrad_core.analysis.summary import MEASURES, column, scores
from altgrad_core.analysis.tables import number_table
from altgrad_core.analysis.words import metric_name

TITLE = "Task performance: which conditions score best?"
_MOST = 10


def section(found: Findings, folder: Path) -> Section:
    """The best conditions, all of them as a heat map, and as lines through their properties."""
    table = score_table(found)
    if table["mean"].isna().all():
        return Section(TITLE, [Paragraph("No run has a final score yet.")])
    blocks: list[Block] = [Paragraph(_answer(found, table)), _best(found, table)]
    heat = _heat(found, table)
    return Section(TITLE, [*blocks, *([heat] if heat is not None else []), _lines(found, table)])


def score_table(found: Findings) -> pd.DataFrame:
    """Condition -> the metric that decides: mean, std and number of runs with a result."""
    done, settings = found.done, settings_of(found.results)
    values = scores(done, found.metric)
    rows = []
    for _, row in found.conditions.iterrows():
        condition = str(row["condition"])
        one = spread(values[done["condition"] == condition].tolist())
        rows.append((condition, str(row["format"]), settings[condition], one.mean, one.std, one.n))
    return pd.DataFrame(rows, columns=["condition", "format", "setting", "mean", "std", "n"])


def _ordered(found: Findings, table: pd.DataFrame) -> pd.DataFrame:
    known = table.dropna(subset=["mean"])
    return known.sort_values("mean", ascending=found.declared.sign < 0, kind="stable")


def _answer(found: Findings, table: pd.DataFrame) -> str:
    ordered = _ordered(found, table)
    best = ordered.iloc[0]
    name = metric_name(found.metric)
    text = f"The best mean {name} on the test split is {_score(best)}, of {best['condition']}"
    reference = table[table["condition"] == found.reference]
    if len(reference) and reference["condition"].iloc[0] != best["condition"]:
        text += f"; the reference {found.reference} has {_score(reference.iloc[0])}"
    among = counted(len(ordered), "condition")
    return (
        f"{text}. It is the best of {among}, chosen after the fact, so its score flatters it; "
        "what the paired differences carry is said below."
    )


def _score(row: pd.Series[float]) -> str:
    return with_spread(Spread(float(row["mean"]), float(row["std"]), int(row["n"])))


def _best(found: Findings, table: pd.DataFrame) -> Table:
    ordered = _ordered(found, table).head(_MOST)
    more = found.conditions.set_index("condition")
    loss = column(found.done, "final/test/loss").groupby(found.done["condition"]).mean()
    rows = tuple(
        cells(
            str(row["condition"]),
            _score(row),
            score(float(more.loc[row["condition"], "f1_macro_tuned_mean"])),
            score(float(loss.get(row["condition"], math.nan))),
            str(row["n"]),
        )
        for _, row in ordered.iterrows()
    )
    head = number_table(
        ("Condition",), (metric_name(found.metric), "F1 macro, tuned", "Test loss", "Runs")
    )
    left = len(table) - len(rows)
    caption = "Best first" + (f"; {left} more are in the main table." if left else ".")
    return Table(head, rows, caption)


def _heat(found: Findings, table: pd.DataFrame) -> HeatMap | None:
    """Format × setting; None where there is one format or one setting."""
    formats = list(dict.fromkeys(table["format"]))
    settings = list(dict.fromkeys(table["setting"]))
    if len(formats) < 2:
        return None
    cell = {(r["format"], r["setting"]): float(r["mean"]) for _, r in table.iterrows()}
    values = tuple(tuple(cell.get((f, s), math.nan) for f in formats) for s in settings)
    return HeatMap(
        name="scores",
        caption=f"Mean {metric_name(found.metric)} by setting and format.",
        rows=tuple(settings),
        columns=tuple(formats),
        values=values,
        texts=tuple(tuple(map(score, row)) for row in values),
    )


def _lines(found: Findings, table: pd.DataFrame) -> ParallelCoordinates:
    """A line per condition; a property that nobody measured has no axis."""
    measured = found.conditions.set_index("condition")
    planned = found.planned.drop_duplicates("condition").set_index("condition")
    known = [name for name in MEASURES if measured[name].notna().any()]
    kept = [n for n in known if not n.endswith("_first")]
    titles = {
        "samples_per_second": "samples/s",
        "stable_rank_last": "stable rank, last",
        "effective_rank_last": "effective rank, last",
        "stall_ratio": "stall ratio",
        "flip_ratio": "flip ratio",
    }
    numbers = {name: dict(measured[name].astype("float64")) for name in kept}
    lines: list[tuple[str, str, tuple[float | str, ...]]] = []
    for _, row in table.iterrows():
        condition = str(row["condition"])
        found_here = [float(numbers[name][condition]) for name in kept]
        values: tuple[float | str, ...] = (str(row["format"]), str(row["setting"]), *found_here)
        values = (*values, float(row["mean"]))
        lines.append((condition, str(planned.loc[condition, "optimizer"] or NONE), values))
    return ParallelCoordinates(
        name="conditions",
        caption="Every condition as a line through its properties, in the colour of its optimizer.",
        axes=("format", "setting", *(titles[name] for name in kept), metric_name(found.metric)),
        lines=tuple(lines),
    )
