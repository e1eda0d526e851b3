"""A document with every kind of block, small enough to know every cell of, and hostile if asked."""

from __future__ import annotations

import math
from functools import cache

import pandas as pd

from altgrad_core.interfaces.blocks import (
    Block,
    Bullets,
    Cell,
    Chart,
    Code,
    Column,
    Paragraph,
    Table,
)
from altgrad_core.report.charts import bars, curves, forest, heat, scatter
from altgrad_core.report.document import Document, Part

EVIL = (
    '<script>window.pwned=1</script><img src=x onerror="window.pwned=1">\' " & ${x} [l](http://e)'
    " {{ 7 * 7 }} `a|b` *b* _c_ #d ~e~ \\"
)
SIDES = ("adamw", "manifold")


def cells(*texts: str) -> tuple[Cell, ...]:
    return tuple(map(Cell, texts))


def sample(sides: tuple[str, str] = SIDES, title: str = "Sample", text: str = "Text.") -> Document:
    """Two parts; the names of the two sides and all running text are given."""
    numbers: tuple[Block, ...] = (
        Paragraph(text),
        Bullets((text, text)),
        Code(text),
        table(sides, text),
    )
    return Document(
        title,
        (Paragraph(text, lead=True),),
        (Part(f"Numbers {title}", numbers), Part("Lines", charts(sides, text))),
    )


def table(sides: tuple[str, str], text: str) -> Table:
    head = (Column("Name"), Column("Score", numeric=True), Column("Never"), Column(text))
    rows = (
        cells(f"{sides[0]}_with_a_name_that_takes_room", "0.5 ± 0.1", "–", "b"),
        cells(sides[1], "−0.25", "", "a10"),
        cells("gap", "–", "–", "a9"),
        (
            Cell("linked", href=f"http://127.0.0.1/{text}"),
            Cell("+2"),
            Cell("–"),
            Cell(text, tone="bad"),
        ),
    )
    return Table(head, rows, text)


@cache
def charts(sides: tuple[str, str], text: str) -> tuple[Chart, ...]:
    groups = [f"{side} group" for side in sides]
    rows = pd.DataFrame(
        {
            "group": groups,
            "centre": [0.02, -0.01],
            "low": [0.01, math.nan],
            "high": [0.03, math.nan],
            "note": [f"+0.02 {text}", "one seed"],
            "control": [False, True],
        }
    )
    seeds = pd.DataFrame({"group": groups * 2, "seed": [0, 0, 1, 1], "value": [0.02, -0.01] * 2})
    steps = [
        (panel, side, seed, step, (k + 1) / step + 0.1 * seed)
        for panel in groups
        for k, side in enumerate(sides)
        for seed in (0, 1)
        for step in range(1, 101)
    ]
    lines = pd.DataFrame(steps, columns=["panel", "side", "seed", "step", "value"])
    places = [
        (r, c, v, f"{v:+}")
        for r, c, v in zip(groups * 2, [*sides, *sides[::-1]], (1, -2, 3, 4), strict=True)
    ]
    return (
        forest("forest", text, rows, seeds, title=text, margin=0.005, floor=0.002),
        curves("curves", text, lines, title=text),
        bars("speed", text, pd.DataFrame({"label": groups, "value": [3, 4], "side": sides}), title=text),
        scatter("points", text, pd.DataFrame({"panel": text, "label": groups, "x": [1, 2], "y": [3, 4]}), ylabel=text),
        heat("tints", text, pd.DataFrame(places, columns=["row", "column", "value", "text"])),
    )  # fmt: skip
