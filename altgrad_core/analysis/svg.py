"""Figures as SVG text: deterministic, without a background, in colours that read on light and dark.

Text stays text. Ink (text, ticks, axes) takes the colour of the text around the picture
(``currentColor``), so an inline figure follows its page; :func:`standalone` does the same for a
file. One unit is one CSS pixel. matplotlib is used through its objects alone; what it can only be
told by global settings is told inside :func:`drawing`.

A line that readers can switch off, and its entry in the key, are groups of class ``series`` and
``key`` that carry the line's name, see :class:`SeriesMarks` and :func:`series_in`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from html import escape, unescape
from io import StringIO
from typing import Any, Literal

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
    "<style>svg{color:#1f2328;--page:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#e6edf3;--page:#0d1117}}</style>"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_MARK = re.compile(r'<g id="(series|key)-mark-(\d+)">')
_SERIES = re.compile(r'class="series" data-series="([^"]*)" data-pen="(\S+) (\w+)"')

Dash = Literal["solid", "dashed", "dotted", "dashdot"]


@dataclass(frozen=True)
class Pen:
    """How a line is drawn: its colour as ``#rrggbb``, and its dashes."""

    colour: str
    dash: Dash = "solid"


@dataclass
class SeriesMarks:
    """The lines of a figure that readers can switch off, by name; several may share a name."""

    entries: list[tuple[str, Pen]] = field(default_factory=list)

    def mark(self, kind: Literal["series", "key"], name: str, pen: Pen) -> str:
        """The id for matplotlib to write, which :func:`to_svg` turns into class and name."""
        if (name, pen) not in self.entries:
            self.entries.append((name, pen))
        return f"{kind}-mark-{self.entries.index((name, pen))}"


def series_attributes(kind: str, name: str, pen: Pen) -> str:
    """The attributes of a group that belongs to a line: its class, name and pen."""
    return f'class="{kind}" data-series="{attribute(name)}" data-pen="{pen.colour} {pen.dash}"'


def series_in(svg: str) -> dict[str, Pen]:
    """The lines of a picture that can be switched off, by name, in the order of drawing."""
    found: dict[str, Pen] = {}
    for name, colour, dash in _SERIES.findall(svg):
        found.setdefault(unescape(name), Pen(colour, dash))
    return found


def attribute(text: str) -> str:
    """``text`` as an attribute's value in double quotes, without what XML cannot hold."""
    return escape(printable(text))


def printable(text: str) -> str:
    """``text`` with a replacement character for each one that XML cannot hold."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


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


def to_svg(figure: Figure, label: str, marks: SeriesMarks | None = None) -> str:
    """The figure as one ``<svg>`` element; ``label`` is what a screen reader says."""
    width, height = (round(inches * 72) for inches in figure.get_size_inches())
    buffer = StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # text stays text: the reader's font has it
        canvas.print_svg(buffer, metadata=_NO_METADATA)
    head = svg_head(width, height, label)
    body = _HEAD.sub(lambda _: head, buffer.getvalue(), count=1)
    body = _DEFAULT_STYLE.sub("", body, count=1)
    body = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", body)
    body = body.replace(INK, "currentColor").replace("'DejaVu Sans'", "system-ui, sans-serif")
    if marks is None:
        return body
    entries = marks.entries
    return _MARK.sub(lambda m: f"<g {series_attributes(m[1], *entries[int(m[2])])}>", body)


def svg_head(width: float, height: float, label: str) -> str:
    """The opening tag of a picture of that many pixels."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{attribute(label)}" style="stroke-linejoin:round;stroke-linecap:butt">'
    )


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
