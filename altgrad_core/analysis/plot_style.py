"""Colours, dashes and axes that the report's figures share.

The colours are Okabe and Ito's, which colour-blind readers tell apart; the two lightest are darkened,
so that each has a contrast of at least 3 : 1 with a light and with a dark page. From the fifth line
on, lines are dashed as well.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from altgrad_core.analysis.svg import Dash, Pen

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#3d9bd6", "#b07d00")
GREY = "#8c8c8c"
KEY_SIZE = 10.0

_DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted", "dashdot")
_PER_DASH = 4


def colour(rank: int | None) -> str:
    """The colour of a side: baseline, treatment, and any others in turn; grey for the reference."""
    return GREY if rank is None else PALETTE[rank % len(PALETTE)]


def pen(rank: int | None) -> Pen:
    """Colour and dashes of a side; the first 12 ranks have pens of their own."""
    if rank is None:
        return Pen(GREY)
    return Pen(colour(rank), _DASHES[rank // _PER_DASH % len(_DASHES)])


def place_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in pixels from the figure's upper left corner."""
    whole_width, whole_height = (inches * 72 for inches in figure.get_size_inches())
    place = (
        left / whole_width,
        1 - (top + height) / whole_height,
        width / whole_width,
        height / whole_height,
    )
    axes = figure.add_axes(place)
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    axes.grid(color=GREY, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, width=0.8, labelsize=KEY_SIZE)
    return axes
