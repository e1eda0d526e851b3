"""How strongly the cells of a heat map are tinted, and the table behind it."""

from __future__ import annotations

import math

import pytest

from altgrad_core.analysis.document import HeatMap
from altgrad_core.analysis.heat import ends, heat_table, strengths


def heat(*rows: tuple[float, ...], diverging: bool = False) -> HeatMap:
    return HeatMap(
        "map",
        "A map.",
        tuple(f"row {n}" for n in range(len(rows))),
        tuple(f"column {n}" for n in range(len(rows[0]))),
        rows,
        tuple(tuple(f"{value:.1f}" for value in row) for row in rows),
        diverging,
    )


def test_strength_runs_from_the_least_to_the_most() -> None:
    assert strengths(heat((2.0, 4.0), (3.0, 2.5))) == ((0.0, 1.0), (0.5, 0.25))


def test_diverging_strength_is_in_proportion_and_keeps_the_sign() -> None:
    assert strengths(heat((-1.0, 0.0, 4.0), diverging=True)) == ((-0.25, 0.0, 1.0),)
    assert strengths(heat((-4.0, 0.0, 1.0), diverging=True)) == ((-1.0, 0.0, 0.25),)


def test_gaps_and_infinities() -> None:
    ((gap, low, high, most),) = strengths(heat((math.nan, 1.0, 3.0, math.inf)))
    assert math.isnan(gap)
    assert (low, high, most) == (0.0, 1.0, 1.0)
    assert strengths(heat((-math.inf, 1.0), diverging=True)) == ((-1.0, 1.0),)
    assert math.isnan(strengths(heat((math.nan,)))[0][0])


def test_equal_values_are_neither_least_nor_most() -> None:
    assert strengths(heat((0.3, 0.3))) == ((0.5, 0.5),)
    assert strengths(heat((0.0, 0.0), diverging=True)) == ((0.0, 0.0),)


def test_the_table_has_every_text() -> None:
    table = heat_table(heat((1.0, 2.0), (3.0, 4.0)))
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["row 0", "1.0", "2.0"],
        ["row 1", "3.0", "4.0"],
    ]
    assert [column.title for column in table.columns] == ["", "column 0", "column 1"]
    assert table.caption == "A map."


def test_the_scale_is_named_by_the_least_and_the_most() -> None:
    assert ends(heat((1.0, math.nan), (3.0, 2.0))) == ("1.0", "3.0")
    assert ends(heat((math.nan,))) == ("", "")


def test_a_map_that_is_not_full_is_refused() -> None:
    whole = heat((1.0, 2.0))
    short = HeatMap("m", "", whole.rows, whole.columns, ((1.0,),), whole.texts)
    with pytest.raises(ValueError, match="values are not 1 × 2"):
        heat_table(short)
