"""Figures, heat maps and parallel coordinates as HTML, with the buttons that the script brings to life.

Buttons are in the page from the start but hidden (or disabled), so that nothing dead is shown where
scripts are off. A heat map is a real table with coloured cells; parallel coordinates have their
numbers in a table beside them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from html import escape

from altgrad_core.analysis.document import Figure, HeatMap, ParallelCoordinates
from altgrad_core.analysis.heat import ends, heat_table, strengths
from altgrad_core.analysis.html_tables import (
    cell_content,
    numeric_class,
    row_header,
    scrolling,
    table_element,
)
from altgrad_core.analysis.parallel import draw_parallel, pens, values_table
from altgrad_core.analysis.svg import Pen, attribute, series_in

_TAG = re.compile(r"<[^<>]*>")
_REFERENCE = re.compile(r'( id="|href="#|url\(#)')


def figure_html(figure: Figure) -> str:
    """Panels side by side, as many as fit, under a button for each line that they draw."""
    panels = "\n".join(
        _own_ids(panel, f"{figure.name}-{number}-") for number, panel in enumerate(figure.panels)
    )
    layout = "panels" if len(figure.panels) > 1 else "panel"
    series: dict[str, Pen] = {}
    for panel in figure.panels:
        series |= {name: pen for name, pen in series_in(panel).items() if name not in series}
    return _figure(
        figure.name,
        "",
        [_toggles(series), f'<div class="{layout}">\n{panels}\n</div>'],
        figure.caption,
    )


def heat_html(heat: HeatMap) -> str:
    """A table whose cells are tinted by their value; every number is written in its cell."""
    table = heat_table(heat)
    head = '<td class="corner"></td>' + "".join(
        f'<th scope="col">{escape(column.title)}</th>' for column in table.columns[1:]
    )
    rows = "\n".join(
        f"<tr>{row_header(label)}"
        + "".join(_tinted(cell.text, share) for cell, share in zip(cells, shares, strict=True))
        + "</tr>"
        for (label, *cells), shares in zip(table.rows, strengths(heat), strict=True)
    )
    region = scrolling(
        f"heat map of {', '.join(heat.rows)}", table_element(head, rows, ' class="tints"')
    )
    return _figure(heat.name, "heat", [region, _scale(heat)], heat.caption)


def parallel_html(block: ParallelCoordinates) -> str:
    """The picture, a button for each group, and the numbers as a table with a button per line."""
    table = values_table(block)
    head = "".join(
        f'<th scope="col"{numeric_class(column.numeric)}>{escape(column.title)}</th>'
        for column in table.columns
    )
    rows = "\n".join(
        f'<tr data-line="{attribute(first.text)}"><th scope="row">'
        '<button type="button" class="pick" disabled '
        f'aria-pressed="false">{attribute(first.text)}</button></th>'
        + "".join(
            f"<td{numeric_class(column.numeric)}>{cell_content(cell)}</td>"
            for cell, column in zip(rest, table.columns[1:], strict=True)
        )
        + "</tr>"
        for first, *rest in table.rows
    )
    numbers = (
        f"<details>\n<summary>The {len(block.lines)} lines as a table</summary>\n"
        f"{scrolling('values of the lines', table_element(head, rows))}\n</details>"
    )
    picture = scrolling("parallel coordinates", draw_parallel(block))
    readout = '<p class="readout" role="status" hidden></p>'
    parts = [_toggles(pens(block)), picture, readout]
    return _figure(block.name, "parallel", parts, block.caption, numbers)


def _figure(name: str, kind: str, parts: Iterable[str], caption: str, after: str = "") -> str:
    body = "\n".join(part for part in parts if part)
    classes = escape(f"{kind} {name}".strip())
    return (
        f'<figure class="{classes}" data-figure="{escape(name)}">\n{body}\n'
        f"<figcaption>{escape(caption)}</figcaption>\n{after}</figure>"
    )


def _toggles(series: Mapping[str, Pen]) -> str:
    """A button per line, all pressed; none where there is nothing to choose."""
    if len(series) < 2:
        return ""
    buttons = "\n".join(
        f'<button type="button" aria-pressed="true" data-toggle="{attribute(name)}">'
        f'<span class="swatch" style="border-top:3px {_border(pen)} {pen.colour}"></span>'
        f"{attribute(name)}</button>"
        for name, pen in series.items()
    )
    return f'<div class="toggles" role="group" aria-label="Lines shown" hidden>\n{buttons}\n</div>'


def _border(pen: Pen) -> str:
    return "dashed" if pen.dash == "dashdot" else pen.dash


def _tinted(text: str, share: float) -> str:
    if math.isnan(share):
        return f'<td class="number empty">{escape(text)}</td>'
    side = "less" if share < 0 else "more"
    return f'<td class="number {side}" style="--tint:{abs(share):.3f}">{escape(text)}</td>'


def _scale(heat: HeatMap) -> str:
    """What the colours mean, in words at the ends of a strip."""
    low, high = ("below 0", "above 0") if heat.diverging else ends(heat)
    if not low:
        return ""
    kind = "two-sided" if heat.diverging else "one-sided"
    return (
        f'<p class="scale" aria-hidden="true">{escape(low)}'
        f'<span class="strip {kind}"></span>{escape(high)}</p>'
    )


def _own_ids(svg: str, prefix: str) -> str:
    """The picture with ids of its own, as they must be in a page with others."""
    return _TAG.sub(lambda tag: _REFERENCE.sub(rf"\g<1>{prefix}", tag[0]), svg)
