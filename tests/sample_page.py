"""A document with every kind of block, small enough to know every cell of, and hostile if asked."""

from __future__ import annotations

import math

import pandas as pd

from altgrad_core.analysis.curves import Line, Panel
from altgrad_core.analysis.document import (
    Block,
    Bullets,
    Cell,
    Code,
    Column,
    Document,
    Figure,
    HeatMap,
    Paragraph,
    ParallelCoordinates,
    Section,
    Table,
    cells,
)
from altgrad_core.analysis.plots import key_lines, plot_curves

EVIL = (
    '<script>window.pwned=1</script><img src=x onerror="window.pwned=1">\' " & ${x} [l](http://e)'
)
SIDES = ("adamw", "manifold")


def sample(sides: tuple[str, str] = SIDES, title: str = "Sample", text: str = "Text.") -> Document:
    """Two sections; the names of the two sides and all running text are given."""
    blocks: list[Block] = [
        Paragraph(text),
        Bullets((text, text)),
        Code(text),
        table(sides, text),
        heat(sides, text, diverging=False),
        heat(sides, text, diverging=True),
    ]
    drawn: list[Block] = [figure(sides, text), parallel(sides, text)]
    lead = Paragraph(text, lead=True)
    return Document(title, [lead], [Section(f"Numbers {title}", blocks), Section("Lines", drawn)])


def table(sides: tuple[str, str], text: str) -> Table:
    head = (Column("Name"), Column("Score", numeric=True), Column(text))
    rows = (
        cells(f"{sides[0]} with a name that takes room", "0.5 ± 0.1", "b"),
        cells(sides[1], "−0.25", "a10"),
        cells("gap", "–", "a9"),
        (Cell("linked", href=f"{text}/"), Cell("+2"), Cell(text, tone="bad")),
    )
    return Table(head, rows, text)


def heat(sides: tuple[str, str], text: str, *, diverging: bool) -> HeatMap:
    values = ((0.1, -0.2), (math.nan, 0.4))
    texts = (("+0.1", "−0.2"), ("–", "+0.4"))
    name = "two-sided-map" if diverging else "map"
    return HeatMap(name, text, sides, sides, values, texts, diverging)


def figure(sides: tuple[str, str], text: str) -> Figure:
    def line(label: str, rank: int | None, height: float) -> Line:
        series = pd.Series([height, height + 1], index=[1, 100])
        return Line(label, rank, (series,), series, ((100.0, height + 1),) if rank else ())

    def draw(panels: list[Panel], salt: str) -> str:
        room = key_lines(panels)
        return plot_curves(
            panels, ylabel=text[:20], limits=(0, 5), lines=room, columns=2, salt=salt
        )

    pair = [
        Panel(text[:20], (line(sides[0], 0, 1), line(sides[1], 1, 2))),
        Panel("second", (line("reference", None, 3), line(sides[1], 1, 2))),
    ]
    each = tuple(draw([panel], f"c{n}") for n, panel in enumerate(pair))
    return Figure("curves", text, each, draw(pair, "curves"))


def parallel(sides: tuple[str, str], text: str) -> ParallelCoordinates:
    lines = (
        (f"first {sides[0]}", sides[0], ("x", 0.5, 1e-4)),
        (f"second {sides[1]}", sides[1], ("y", 0.25, math.nan)),
        (f"third {sides[0]}", sides[0], ("y", 0.75, 1e-1)),
    )
    return ParallelCoordinates("lines", text, (f"Kind {text[:9]}", "Score", "Rate"), lines)
