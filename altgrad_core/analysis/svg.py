"""Figures as SVG text: deterministic, without a background, in colours that read on light and dark.

Text stays text. Ink (text, ticks, axes) takes the colour of the text around the picture
(``currentColor``), so an inline figure follows its page; :func:`standalone` does the same for a
file. One unit is one CSS pixel. matplotlib is used through its objects alone; what it can only be
told by global settings is told inside :func:`drawing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from html import escape
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

INK = "#010203"
"""Stands for ``currentColor`` while matplotlib draws, which knows only colours by number."""

FONT_SIZE = 11.0

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # ships with matplotlib, so positions are the same everywhere
    "font.size": FONT_SIZE,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_HEAD = re.compile(r"^.*?<svg[^>]*>", re.DOTALL)
_DEFAULT_STYLE = re.compile(r'\s*<defs>\s*<style type="text/css">[^<]*</style>\s*</defs>')
_FILE_STYLE = (
    "<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>"
)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many pixels."""
    return Figure(figsize=(width / 72, height / 72), dpi=72)


@contextmanager
def drawing(salt: str = "") -> Iterator[None]:
    """The settings to draw under, whatever the user's own are, which come back at the end.

    ``salt`` goes into the ids of what is drawn; the same salt and figure give the same text.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({**_STYLE, "svg.hashsalt": salt})
        yield


def to_svg(figure: Figure, label: str) -> str:
    """The figure as one ``<svg>`` element; ``label`` is what a screen reader says."""
    width, height = (round(inches * 72) for inches in figure.get_size_inches())
    buffer = StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata=_NO_METADATA)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}" style="stroke-linejoin:round;stroke-linecap:butt">'
    )
    body = _HEAD.sub(lambda _: head, buffer.getvalue(), count=1)
    body = _DEFAULT_STYLE.sub("", body, count=1)
    return body.replace(INK, "currentColor").replace("'DejaVu Sans'", "system-ui, sans-serif")


def standalone(svg: str) -> str:
    """The same picture as a file of its own, which follows its reader's light or dark setting."""
    head, end, rest = svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}{end}{_FILE_STYLE}{rest.strip()}\n'


@cache
def text_width(text: str, size: float) -> float:
    """Width of a line of text in pixels; an upper bound, since readers' fonts are narrower."""
    if not text.strip():
        return 0.0
    with drawing():
        path = TextPath((0, 0), text, size=size, prop=FontProperties(family="DejaVu Sans"))
    return float(path.get_extents().width)
