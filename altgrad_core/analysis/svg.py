"""Figures as SVG text: deterministic, without a background, in colours that read on light and dark.

Lines of text stay text. Ink (text, ticks, axes) takes the colour of the text around the picture
(``currentColor``), so an inline figure follows its page; :func:`standalone` does the same for a file.
One unit is one CSS pixel.
"""

from __future__ import annotations

import re
from html import escape
from io import StringIO

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

INK = "#010203"
"""Stands for ``currentColor`` while matplotlib draws, which knows only colours by number."""

FONT_SIZE = 11.0

_STYLE = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # ships with matplotlib, so positions are the same everywhere
    "font.size": FONT_SIZE,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "path.simplify": True,
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


def style() -> mpl.RcParams:
    """Settings to draw under: ``with mpl.rc_context(style())``. They last no longer than the block."""
    settings = mpl.rcParams.copy()
    settings.update(_STYLE)
    return settings


def to_svg(figure: Figure, label: str, salt: str) -> str:
    """The figure as one ``<svg>`` element. ``label`` is read out; ``salt`` makes its ids its own."""
    width, height = (round(inches * 72) for inches in figure.get_size_inches())
    buffer = StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata=_NO_METADATA)
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
    head = _HEAD.match(svg)
    assert head is not None
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head[0]}{_FILE_STYLE}{svg[head.end() :].strip()}\n'


def text_width(text: str, size: float = FONT_SIZE, *, bold: bool = False) -> float:
    """Width of a line of text in pixels; an upper bound, since the readers' fonts are narrower."""
    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return float(
        TextPath((0, 0), text.replace("$", r"\$"), size=size, prop=font).get_extents().width
    )
