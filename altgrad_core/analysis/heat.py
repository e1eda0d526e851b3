"""Heat maps: how strongly each cell is coloured, and the table that holds the numbers.

A cell's *strength* is what share of the full tint it gets. The renderer for HTML mixes the tint with
the page's own colour, so that the numbers stay readable on a light and on a dark page.
"""

from __future__ import annotations

import math

from altgrad_core.analysis.document import Cell, Column, HeatMap, Table


def strengths(heat: HeatMap) -> tuple[tuple[float, ...], ...]:
    """The strength of each cell; NaN for an empty one.

    Diverging: −1 to 1, in proportion to the value, the largest magnitude at ±1. Otherwise 0 for the
    least value to 1 for the most (0.5 where all are equal). Infinities count as the nearest end.
    """
    finite = [v for row in heat.values for v in row if math.isfinite(v)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    if heat.diverging:
        high = max(abs(low), abs(high))
        low = -high
    return tuple(
        tuple(_strength(value, low, high, diverging=heat.diverging) for value in row)
        for row in heat.values
    )


def _strength(value: float, low: float, high: float, *, diverging: bool) -> float:
    if math.isnan(value):
        return math.nan
    if low == high:
        share = 0.5 if math.isfinite(value) else float(value > 0)
    else:
        share = (min(max(value, low), high) - low) / (high - low)
    return 2 * share - 1 if diverging else share


def heat_table(heat: HeatMap) -> Table:
    """The same rows and columns as a plain table, with the caption."""
    _check(heat)
    head = (Column(""), *(Column(title, numeric=True) for title in heat.columns))
    rows = tuple(
        (Cell(label), *map(Cell, texts)) for label, texts in zip(heat.rows, heat.texts, strict=True)
    )
    return Table(head, rows, heat.caption)


def ends(heat: HeatMap) -> tuple[str, str]:
    """What is written at the two ends of the colour scale: the texts of the least and the most."""
    written = [
        (value, text)
        for values, texts in zip(heat.values, heat.texts, strict=True)
        for value, text in zip(values, texts, strict=True)
        if math.isfinite(value)
    ]
    if not written:
        return "", ""
    return min(written)[1], max(written)[1]


def _check(heat: HeatMap) -> None:
    shape = [len(heat.columns)] * len(heat.rows)
    for name, cells in (("values", heat.values), ("texts", heat.texts)):
        if [len(row) for row in cells] != shape:
            wide = f"{len(heat.rows)} × {len(heat.columns)}"
            raise ValueError(f"heat map {heat.name!r}: {name} are not {wide}")
