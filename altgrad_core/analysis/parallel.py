"""Parallel coordinates: a line per condition through one upright axis per property, as SVG.

Numbers run upwards from the least to the most of their axis; an axis whose numbers are all positive
and span a factor of 100 is logarithmic, and says so. Texts stand in the order in which they first
come, from the top down, and lines that share a text pass it side by side. A value that was not
measured passes below its axis. Each line is a group of class ``series`` named by its group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from altgrad_core.analysis.document import Cell, Column, ParallelCoordinates, Table
from altgrad_core.analysis.numbers import NONE, significant
from altgrad_core.analysis.plot_style import GREY, KEY_SIZE, pen
from altgrad_core.analysis.svg import (
    FONT_SIZE,
    Pen,
    attribute,
    series_attributes,
    svg_head,
    text_width,
)

_HEIGHT, _ROW = 230.0, 24.0
_HEAD, _FOOT, _SIDE, _GAP = 36.0, 12.0, 14.0, 22.0
_NARROWEST = 140.0
_SPREAD, _WIDEST = 0.6, 0.2
"""The lines of one text take this part of its band, and at most that part of the axis."""
_UNMEASURED = 28.0  # below the axis
_LOG_FROM = 100.0
_DASHES = {"solid": "none", "dashed": "6 3", "dotted": "1.5 3", "dashdot": "6 3 1.5 3"}
_HALO = "paint-order:stroke;stroke:var(--page,#fff);stroke-width:3px"

Value = float | str


@dataclass(frozen=True)
class Axis:
    """Where the lines pass one axis: 0 at the bottom, 1 at the top; None where not measured."""

    title: str
    places: tuple[float | None, ...]
    ticks: tuple[tuple[float, str], ...]
    categorical: bool


def axes_of(block: ParallelCoordinates) -> list[Axis]:
    """The axes of ``block``. Raises ``ValueError`` if a line has not one value for each."""
    for label, _, values in block.lines:
        if len(values) != len(block.axes):
            raise ValueError(f"{label!r}: {len(values)} values for {len(block.axes)} axes")
    columns = [[values[place] for *_, values in block.lines] for place in range(len(block.axes))]
    return [_axis(title, column) for title, column in zip(block.axes, columns, strict=True)]


def value_text(value: Value) -> str:
    """A value as the table beside the picture has it."""
    return value if isinstance(value, str) else significant(value)


def values_table(block: ParallelCoordinates) -> Table:
    """The numbers behind the picture: a row per line."""
    head = (
        Column("Line"),
        *(
            Column(title, numeric=not any(isinstance(v[place], str) for *_, v in block.lines))
            for place, title in enumerate(block.axes)
        ),
    )
    rows = tuple(
        (Cell(label), *(Cell(value_text(value)) for value in values))
        for label, _, values in block.lines
    )
    return Table(head, rows)


def pens(block: ParallelCoordinates) -> dict[str, Pen]:
    """The pen of each group, in the order in which the groups first come."""
    groups = dict.fromkeys(group for _, group, _ in block.lines)
    return {group: pen(rank) for rank, group in enumerate(groups)}


def draw_parallel(block: ParallelCoordinates) -> str:
    """The picture as one ``<svg>`` element."""
    axes = axes_of(block)
    xs, width = _columns(axes)
    most = max((len(axis.ticks) for axis in axes if axis.categorical), default=0)
    tall = max(_HEIGHT, _ROW * most)
    gaps = any(place is None for axis in axes for place in axis.places)
    height = _HEAD + tall + (_UNMEASURED if gaps else 0.0) + _FOOT
    names = ", ".join(block.axes)
    return "\n".join(
        [
            svg_head(round(width), round(height), f"{len(block.lines)} lines through {names}"),
            *(_upright(x, tall) for x in xs),
            *_lines(block, axes, xs, tall),
            *(_labels(axis, x, tall) for axis, x in zip(axes, xs, strict=True)),
            "</svg>",
        ]
    )


def _axis(title: str, column: Sequence[Value]) -> Axis:
    if any(isinstance(value, str) for value in column):
        return _text_axis(title, [value_text(value) for value in column])
    return _number_axis(title, [float(value) for value in column])


def _text_axis(title: str, column: Sequence[str]) -> Axis:
    """Texts at even distances; the lines of one text share a band around it."""
    texts = list(dict.fromkeys(column))
    band = 1 / len(texts)
    centres = {text: 1 - band * (n + 0.5) for n, text in enumerate(texts)}
    members = {text: [n for n, value in enumerate(column) if value == text] for text in texts}
    places = []
    for n, text in enumerate(column):
        inside = members[text]
        share = (inside.index(n) + 0.5) / len(inside) - 0.5  # of the room, −½ to ½
        places.append(centres[text] - share * min(_SPREAD * band, _WIDEST))
    return Axis(title, tuple(places), tuple((centres[t], t) for t in texts), True)


def _number_axis(title: str, column: Sequence[float]) -> Axis:
    finite = [value for value in column if math.isfinite(value)]
    if not finite:
        places = [None if math.isnan(v) else float(v > 0) for v in column]
        return Axis(title, tuple(places), (), False)
    low, high = min(finite), max(finite)
    log = low > 0 and high / low >= _LOG_FROM

    def place(value: float) -> float | None:
        if math.isnan(value):
            return None
        if low == high:
            return 0.5 if math.isfinite(value) else float(value > 0)
        inside = min(max(value, low), high)
        if log:
            return math.log(inside / low) / math.log(high / low)
        return (inside - low) / (high - low)

    middle = math.sqrt(low * high) if log else low + (high - low) / 2
    ticks = {significant(value): place(value) or 0.0 for value in (low, middle, high)}
    return Axis(
        f"{title} (log)" if log else title,
        tuple(map(place, column)),
        tuple((where, text) for text, where in ticks.items()),
        False,
    )


def _columns(axes: Sequence[Axis]) -> tuple[list[float], float]:
    """The x of each axis and the whole width: room for the labels, which stand to the right."""
    xs: list[float] = []
    x = _SIDE
    for axis in axes:
        halves = [text_width(line, FONT_SIZE) / 2 for line in _title_lines(axis.title)]
        x = max(x, xs[-1] + max(halves) + _GAP if xs else max(halves) + 4)
        xs.append(x)
        labels = [text_width(text, KEY_SIZE) for _, text in axis.ticks]
        x += max([_NARROWEST, *(label + _GAP for label in labels), max(halves) + _GAP])
    last = [text_width(text, KEY_SIZE) + 8 for _, text in axes[-1].ticks] if axes else []
    last += [text_width(t, FONT_SIZE) / 2 for t in _title_lines(axes[-1].title)] if axes else []
    return xs, (xs[-1] if xs else 0.0) + max(last, default=0.0) + _SIDE


def _title_lines(title: str) -> list[str]:
    """A long title is broken at the space nearest to its middle."""
    spaces = [n for n, character in enumerate(title) if character == " "]
    if len(title) <= 12 or not spaces:
        return [title]
    cut = min(spaces, key=lambda n: abs(n - len(title) / 2))
    return [title[:cut], title[cut + 1 :]]


def _y(place: float | None, tall: float) -> float:
    return _HEAD + (tall + _UNMEASURED - 8 if place is None else tall * (1 - place))


def _upright(x: float, tall: float) -> str:
    return (
        f'<path d="M{x:.1f} {_HEAD:.0f}V{_HEAD + tall:.1f}" '
        f'style="fill:none;stroke:{GREY};stroke-width:1"/>'
    )


def _lines(
    block: ParallelCoordinates, axes: Sequence[Axis], xs: Sequence[float], tall: float
) -> list[str]:
    inks = pens(block)
    drawn = []
    for number, (label, group, values) in enumerate(block.lines):
        points = [
            f"{x:.1f} {_y(axis.places[number], tall):.1f}" for axis, x in zip(axes, xs, strict=True)
        ]
        said = ", ".join(f"{t}: {value_text(v)}" for t, v in zip(block.axes, values, strict=True))
        path = f"M{'L'.join(points)}"
        ink = inks[group]
        drawn.append(
            f'<g {series_attributes("series", group, ink)} data-line="{attribute(label)}">'
            f"<title>{attribute(label)}. {attribute(said)}</title>"
            f'<path class="hit" d="{path}" style="fill:none;stroke:none;stroke-width:11;'
            'pointer-events:stroke"/>'
            f'<path class="ink" d="{path}" style="fill:none;stroke:{ink.colour};stroke-width:1.6;'
            f'stroke-opacity:0.8;stroke-dasharray:{_DASHES[ink.dash]}"/></g>'
        )
    return drawn


def _labels(axis: Axis, x: float, tall: float) -> str:
    """Title above, ticks to the right; a halo in the page's colour keeps the lines off the text."""
    title = _title_lines(axis.title)
    parts = [
        _text(x, _HEAD - 10 - 13 * (len(title) - 1 - n), line, FONT_SIZE, "middle", bold=True)
        for n, line in enumerate(title)
    ]
    parts += [_text(x + 5, _y(place, tall) + 3.5, text, KEY_SIZE) for place, text in axis.ticks]
    if None in axis.places:
        parts.append(_text(x + 5, _y(None, tall) + 3.5, f"{NONE} not measured", KEY_SIZE))
    return "\n".join(parts)


def _text(
    x: float, y: float, text: str, size: float, anchor: str = "start", *, bold: bool = False
) -> str:
    weight = ";font-weight:bold" if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" style="font:{size:.0f}px system-ui, sans-serif;'
        f'text-anchor:{anchor};fill:currentColor;{_HALO}{weight}">{attribute(text)}</text>'
    )
