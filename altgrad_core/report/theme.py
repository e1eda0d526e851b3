"""The colours and the theme that the report's charts share.

The colours are Okabe and Ito's, which colour-blind readers tell apart; the two lightest are darkened,
so that each has a contrast of at least 3 : 1 with a light and with a dark page. Text and rules take
the colour of the page around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from altgrad_core.interfaces.blocks import Chart

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#3d9bd6", "#b07d00")
GREY = "#8c8c8c"
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
_PER_DASH = 4
INK = "currentColor"
WIDTH, PANEL, ROW = 720, 230, 24
"""Pixels: of a whole chart, of one panel of several, and of a row."""

_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "Arial, 'Liberation Sans', sans-serif",  # measured alike where drawn and where read
    "view": {"stroke": None},
    "axis": {
        **{f"{part}Color": INK for part in ("label", "title", "domain", "tick", "grid")},
        "gridOpacity": 0.15,
        "domainOpacity": 0.5,
        "tickOpacity": 0.5,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "axisY": {"labelLimit": 260},
    "legend": {
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": 12,
        "labelLimit": 300,
        "orient": "top",
        "symbolType": "stroke",
        "symbolStrokeWidth": 3,
        "symbolOpacity": 1,
    },
    "header": {"labelColor": INK, "labelFontSize": 12, "labelLimit": PANEL, "titleColor": INK},
    "text": {"color": INK, "fontSize": 12},
    "rule": {"color": INK},
}


def finished(name: str, caption: str, chart: Any) -> Chart:
    """An Altair chart as a block, in the report's theme."""
    with alt.data_transformers.enable(max_rows=None):
        # Its parts were validated as they were made; the whole once more takes long.
        spec = chart.to_dict(validate=False)
    return Chart(name, caption, {**spec, "config": _CONFIG})


def in_rows(chart: Any, rows: int) -> Any:
    """A chart as wide as the page, labels counted, with that many rows."""
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    return chart.properties(width=WIDTH, height=ROW * rows, autosize=fit)


def in_panels(layers: Sequence[Any], data: Any, height: int) -> Any:
    """Layers in a panel for each value of ``panel``, in their order."""
    order = list(dict.fromkeys(data["panel"]))
    facet = alt.Facet("panel:N", title=None, sort=order, header=alt.Header(labelAnchor="start"))
    panel = alt.layer(*layers, data=data).properties(width=PANEL, height=height)
    return panel.facet(facet=facet, columns=3)


def pen(place: int) -> tuple[str, list[int]]:
    """Colour and dashes of a line by its place; from the fifth on, lines are dashed as well."""
    return PALETTE[place % len(PALETTE)], DASHES[place // _PER_DASH % len(DASHES)]


def scale(domain: Sequence[str], pens: Sequence[Any]) -> alt.Scale:
    """What each value looks like."""
    return alt.Scale(domain=list(domain), range=list(pens))


def tips(**titles: str) -> list[alt.Tooltip]:
    """Lines of a tooltip: encoding (``value:Q``, ``group:N``) by title; numbers to four digits."""
    return [
        alt.Tooltip(field, title=title, format=".4" if field.endswith("Q") else alt.Undefined)
        for title, field in titles.items()
    ]
