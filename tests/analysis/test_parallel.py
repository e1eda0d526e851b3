"""Where the lines of parallel coordinates pass, and the picture's text."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest

from altgrad_core.analysis.document import ParallelCoordinates
from altgrad_core.analysis.parallel import axes_of, draw_parallel, pens, values_table
from altgrad_core.analysis.svg import text_width

SVG = "{http://www.w3.org/2000/svg}"


def block(*lines: tuple[str, str, tuple[float | str, ...]]) -> ParallelCoordinates:
    axes = tuple(f"axis {n}" for n in range(len(lines[0][2])))
    return ParallelCoordinates("all", "Lines.", axes, lines)


def column(*values: float | str) -> ParallelCoordinates:
    """Lines through one axis."""
    return block(*((f"line {n}", "g", (value,)) for n, value in enumerate(values)))


def points(svg: str) -> list[list[tuple[float, float]]]:
    """The corners of each line."""
    paths = [g.find(f"{SVG}path") for g in ET.fromstring(svg).iter(f"{SVG}g")]
    return [
        [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path.get("d", ""))]
        for path in paths
        if path is not None
    ]


def test_numbers_run_from_the_least_at_the_bottom_to_the_most_at_the_top() -> None:
    (axis,) = axes_of(column(2.0, 4.0, 3.0))
    assert axis.places == (0.0, 1.0, 0.5)
    assert [text for _, text in axis.ticks] == ["2.00", "3.00", "4.00"]
    assert [where for where, _ in axis.ticks] == [0.0, 0.5, 1.0]


def test_a_wide_range_of_positive_numbers_is_logarithmic_and_says_so() -> None:
    (axis,) = axes_of(column(1e-4, 1e-2, 1e-3))
    assert axis.places == pytest.approx((0.0, 1.0, 0.5))
    assert axis.title == "axis 0 (log)"
    (linear,) = axes_of(column(0.0, 1e6))
    assert linear.title == "axis 0"
    (narrow,) = axes_of(column(1.0, 99.0, 50.0))
    assert narrow.places == (0.0, 1.0, 0.5)


def test_equal_numbers_gaps_and_infinities() -> None:
    (equal,) = axes_of(column(0.5, 0.5))
    assert equal.places == (0.5, 0.5)
    assert len(equal.ticks) == 1
    (mixed,) = axes_of(column(math.nan, 1.0, 3.0, math.inf, -math.inf))
    assert mixed.places == (None, 0.0, 1.0, 1.0, 0.0)
    (none,) = axes_of(column(math.nan, math.nan))
    assert none.places == (None, None)
    assert none.ticks == ()


def test_texts_stand_from_the_top_down_and_lines_of_one_text_side_by_side() -> None:
    (axis,) = axes_of(column("a", "b", "a", "c", "a"))
    assert [text for _, text in axis.ticks] == ["a", "b", "c"]
    first, b, second, c, third = (place or 0.0 for place in axis.places)
    assert first > second > third > b > c
    assert first - second == pytest.approx(second - third)
    assert second == pytest.approx({t: w for w, t in axis.ticks}["a"])
    assert 0 < c < first < 1


def test_one_text_among_numbers_makes_the_axis_one_of_texts() -> None:
    (axis,) = axes_of(column(0.5, "none"))
    assert axis.categorical
    assert [text for _, text in axis.ticks] == ["0.500", "none"]


def test_every_line_passes_every_axis_from_left_to_right() -> None:
    svg = draw_parallel(
        block(
            ("one", "a", ("x", 1.0, 2.0)),
            ("two", "b", ("y", 2.0, math.nan)),
            ("three", "a", ("y", 3.0, 1.0)),
        )
    )
    root = ET.fromstring(svg)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    lines = points(svg)
    assert len(lines) == 3
    for line in lines:
        xs = [x for x, _ in line]
        assert xs == sorted(xs)
        assert len(set(xs)) == 3
        assert xs == [x for x, _ in lines[0]]
        assert all(0 < x < width and 0 < y < height for x, y in line)
    heights = [line[1][1] for line in lines]
    assert heights == sorted(heights, reverse=True)  # 1 below 2 below 3
    unmeasured = lines[1][2][1]
    assert unmeasured > max(line[2][1] for n, line in enumerate(lines) if n != 1)
    assert "– not measured" in [text.text for text in root.iter(f"{SVG}text")]


def test_no_slot_for_gaps_where_there_are_none() -> None:
    assert "not measured" not in draw_parallel(column(1.0, 2.0))


def test_lines_carry_their_group_its_pen_and_what_they_are() -> None:
    found = block(("one", "a", (1.0,)), ("two", "b", (2.0,)), ("three", "a", (3.0,)))
    groups = list(ET.fromstring(draw_parallel(found)).iter(f"{SVG}g"))
    assert [g.get("data-series") for g in groups] == ["a", "b", "a"]
    assert [g.get("data-line") for g in groups] == ["one", "two", "three"]
    assert groups[1].findtext(f"{SVG}title") == "two. axis 0: 2.00"
    inks = [g.findall(f"{SVG}path")[1].get("style", "") for g in groups]
    assert inks[0] == inks[2] != inks[1]
    assert f"stroke:{pens(found)['b'].colour};" in inks[1]


def test_names_are_text_in_the_picture() -> None:
    evil = '<script>alert(1)</script>" onload="x\' & \x00'
    found = ParallelCoordinates(evil, evil, (evil, "n"), ((evil, evil, (evil, 1.0)),))
    root = ET.fromstring(draw_parallel(found))
    assert {node.tag for node in root.iter()} == {
        f"{SVG}{tag}" for tag in ("svg", "path", "g", "title", "text")
    }
    assert root.find(f"{SVG}g").get("data-line") == evil.replace("\x00", "�")  # type: ignore[union-attr]
    assert not any(name.startswith("on") for node in root.iter() for name in node.attrib)


def test_long_titles_and_labels_do_not_run_into_the_next_axis() -> None:
    label = "a_rather_long_name_of_an_optimizer"
    title = "A title that has many words in it"
    svg = draw_parallel(
        ParallelCoordinates("n", "", (title, title, "c"), (("l", "g", (label, label, 1.0)),))
    )
    texts = list(ET.fromstring(svg).iter(f"{SVG}text"))
    (first, *_), xs = points(svg), [x for x, _ in points(svg)[0]]
    assert len(first) == 3
    starts = [float(t.get("x", 0)) for t in texts if t.text == label]
    assert len(starts) == 2
    for start, following in zip(starts, xs[1:], strict=True):
        assert start + text_width(label, 10.0) < following
    heads = [t for t in texts if (t.text or "x") in title]
    assert len(heads) == 4  # two lines for each
    half = max(text_width(t.text or "", 11.0) for t in heads) / 2
    assert xs[0] + half < xs[1] - half


def test_the_table_has_what_the_picture_shows() -> None:
    table = values_table(block(("one", "a", ("x", 0.5, math.nan))))
    assert [cell.text for cell in table.rows[0]] == ["one", "x", "0.500", "–"]
    assert [column.numeric for column in table.columns] == [False, False, True, True]


def test_a_line_without_a_value_for_each_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="1 values for 2 axes"):
        draw_parallel(ParallelCoordinates("n", "", ("a", "b"), (("line", "g", (1.0,)),)))
