"""Scatter plots: the benefit of each format against a property of the formats, a panel each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from altgrad_core.analysis.plot_style import KEY_SIZE, colour, place_axes
from altgrad_core.analysis.svg import FONT_SIZE, INK, drawing, new_figure, to_svg

_PANEL = (290.0, 210.0)
_MARGIN = {"left": 62.0, "right": 34.0, "top": 24.0, "bottom": 38.0}


@dataclass(frozen=True)
class Cloud:
    """One panel: a title, what its x axis measures, and the points by name."""

    title: str
    xlabel: str
    points: tuple[tuple[str, float, float], ...]


def plot_scatter(clouds: Sequence[Cloud], *, ylabel: str, columns: int, salt: str) -> str:
    """Panels in a grid, each point with its name beside it, a line at no benefit. SVG text."""
    columns = min(columns, len(clouds))
    rows = -(-len(clouds) // columns)
    with drawing(salt):
        figure = new_figure(_PANEL[0] * columns, _PANEL[1] * rows)
        for place, cloud in enumerate(clouds):
            row, column = divmod(place, columns)
            _draw(figure, cloud, column * _PANEL[0], row * _PANEL[1], ylabel)
        names = ", ".join(cloud.xlabel for cloud in clouds)
        return to_svg(figure, f"{ylabel} by {names}")


def _draw(figure: Figure, cloud: Cloud, left: float, top: float, ylabel: str) -> None:
    axes = place_axes(
        figure,
        left + _MARGIN["left"],
        top + _MARGIN["top"],
        _PANEL[0] - _MARGIN["left"] - _MARGIN["right"],
        _PANEL[1] - _MARGIN["top"] - _MARGIN["bottom"],
    )
    axes.axhline(0, color=INK, linewidth=0.8)
    for name, x, y in cloud.points:
        axes.plot([x], [y], "o", color=colour(1), markersize=6)
        axes.annotate(
            name, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=KEY_SIZE - 1
        )
    axes.margins(0.12, 0.18)
    axes.set_xlabel(cloud.xlabel)
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if cloud.title:
        axes.set_title(cloud.title, fontsize=FONT_SIZE, loc="left")
