"""The report's figures: curves by group, paired differences, throughput. Each returns SVG text.

Colours are Okabe and Ito's, which colour-blind readers tell apart; sides also differ in weight and
are named in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from altgrad_core.analysis.contrast import Delta
from altgrad_core.analysis.curves import Line, Panel
from altgrad_core.analysis.numbers import significant, with_spread
from altgrad_core.analysis.svg import FONT_SIZE, INK, drawing, new_figure, text_width, to_svg

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
GREY = "#8c8c8c"

_PANEL = (290.0, 190.0)  # of the axes with their labels; the header comes on top
_MARGIN = {"left": 46.0, "right": 10.0, "bottom": 36.0}
_TITLE, _KEY_LINE, _SWATCH, _GAP = 20.0, 15.0, 14.0, 12.0
_KEY_SIZE = 10.0
_WIDE, _ROW = 420.0, 24.0


def colour(rank: int | None) -> str:
    """The colour of a side: baseline, treatment, and any others in turn; grey for the reference."""
    return GREY if rank is None else PALETTE[rank % len(PALETTE)]


def key_lines(found: Sequence[Panel]) -> int:
    """How many lines the longest of the panels' keys takes."""
    return 1 + max(row for panel in found for *_, row in _key_places(panel))


def plot_curves(
    found: Sequence[Panel],
    *,
    ylabel: str,
    limits: tuple[float | None, float],
    lines: int,
    columns: int,
    salt: str,
) -> str:
    """Panels in a grid, all with the same y limits (None: below the curves).

    ``lines`` is the room for keys, see :func:`key_lines`: panels that stand side by side share it.
    """
    columns = min(columns, len(found))
    rows = math.ceil(len(found) / columns)
    header = _TITLE + _KEY_LINE * lines + 4
    width, height = _PANEL[0] * columns, (_PANEL[1] + header) * rows
    with drawing(salt):
        figure = new_figure(width, height)
        for place, panel in enumerate(found):
            row, column = divmod(place, columns)
            left, upper = column * _PANEL[0], row * (_PANEL[1] + header)
            axes = _axes(
                figure,
                left + _MARGIN["left"],
                upper + header,
                _PANEL[0] - _MARGIN["left"] - _MARGIN["right"],
                _PANEL[1] - _MARGIN["bottom"],
            )
            _draw_panel(axes, panel)
            axes.set_ylim(*limits)
            axes.set_xlabel("step")
            axes.set_ylabel(ylabel)
            _draw_key(figure, panel, left, upper)
        names = ", ".join(panel.title for panel in found)
        return to_svg(figure, f"{ylabel} by step: {names}")


def plot_deltas(found: Sequence[Delta], *, xlabel: str, floor: float | None, salt: str) -> str:
    """A row per group: each seed's difference as a small dot, their mean ± std as a large one."""
    labels = [delta.group for delta in found]
    notes = [
        with_spread(delta.delta, signed=True) if delta.pairs else "no pair yet" for delta in found
    ]
    with drawing(salt):
        figure, axes = _rows(labels, notes)
        axes.axvline(0, color=INK, linewidth=0.8, gid="zero")
        if floor:
            axes.axvspan(-floor, floor, color=GREY, alpha=0.25, linewidth=0)
        reach = _reach(found, floor)
        axes.set_xlim(-reach, reach)
        for row, delta in enumerate(found):
            _draw_delta(axes, row, delta, reach)
        axes.set_xlabel(xlabel)
        axes.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
        rows = (f"{label} {note}" for label, note in zip(labels, notes, strict=True))
        return to_svg(figure, f"{xlabel}: {', '.join(rows)}")


def plot_throughput(table: pd.DataFrame, ranks: Sequence[int], *, salt: str) -> str:
    """A bar per condition of the condition table; ``ranks`` gives the colours."""
    labels = table["condition"].astype(str).tolist()
    speeds = table["samples_per_second"].tolist()
    relative = table["relative_throughput"].tolist()
    notes = [
        f"{significant(speed)}{f' ({significant(r)}×)' if not math.isnan(r) else ''}"
        for speed, r in zip(speeds, relative, strict=True)
    ]
    with drawing(salt):
        figure, axes = _rows(labels, notes)
        known = [0.0 if math.isnan(speed) else speed for speed in speeds]
        axes.barh(range(len(known)), known, height=0.62, color=[colour(rank) for rank in ranks])
        axes.set_xlim(0, None)
        axes.set_xlabel("training throughput (samples/s)")
        return to_svg(figure, f"samples per second: {', '.join(labels)}")


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
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
    axes.tick_params(length=3, width=0.8, labelsize=_KEY_SIZE)
    return axes


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        ink = colour(line.rank)
        if len(line.seeds) > 1:
            for seed in line.seeds:
                axes.plot(seed.index, seed, color=ink, alpha=0.35, linewidth=0.8)
        axes.plot(line.mean.index, line.mean, color=ink, linewidth=_weight(line))
        for step, value in line.ends:
            axes.plot([step], [value], marker="x", color=ink, markersize=7, markeredgewidth=2)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _weight(line: Line) -> float:
    return 1.2 if line.rank is None else 1.8


def _entries(panel: Panel) -> list[tuple[Line, str, float]]:
    """The key's entries: line, text, and width with its swatch."""
    texts = [f"{line.label}, diverged" if line.ends else line.label for line in panel.lines]
    return [
        (line, text, _SWATCH + 4 + text_width(text, _KEY_SIZE))
        for line, text in zip(panel.lines, texts, strict=True)
    ]


def _key_places(panel: Panel) -> list[tuple[Line, str, float, int]]:
    """Each entry with its x (from the panel's left) and its line in the key, filled like text."""
    x, row, places = 8.0, 0, []
    for line, text, width in _entries(panel):
        if x > 8.0 and x + width > _PANEL[0]:
            x, row = 8.0, row + 1
        places.append((line, text, x, row))
        x += width + _GAP
    return places


def _draw_key(figure: Figure, panel: Panel, left: float, top: float) -> None:
    """Title and key above the axes, where no curve can run through them."""
    width, height = (inches * 72 for inches in figure.get_size_inches())

    def place(x: float, y: float) -> tuple[float, float]:
        return (left + x) / width, 1 - (top + y) / height

    x, y = place(8, 14)
    figure.text(x, y, panel.title, fontsize=FONT_SIZE + 1, fontweight="bold")
    for line, text, offset, row in _key_places(panel):
        baseline = _TITLE + _KEY_LINE * row + 11
        start, end = place(offset, baseline - 3.5), place(offset + _SWATCH, baseline - 3.5)
        ink = colour(line.rank)
        figure.add_artist(
            Line2D((start[0], end[0]), (start[1], end[1]), color=ink, linewidth=_weight(line) + 0.6)
        )
        x, y = place(offset + _SWATCH + 4, baseline)
        figure.text(x, y, text, fontsize=_KEY_SIZE)


def _rows(labels: Sequence[str], notes: Sequence[str]) -> tuple[Figure, Axes]:
    """A figure with a labelled row for each entry, top to bottom, and a note at the end of each."""
    left = 12 + max(text_width(label, _KEY_SIZE) for label in labels)
    right = 12 + max(text_width(note, _KEY_SIZE) for note in notes)
    width = max(_WIDE, left + right + 140)
    height = _ROW * len(labels)
    figure = new_figure(width, height + 46)
    axes = _axes(figure, left, 6, width - left - right, height)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    for row, note in enumerate(notes):
        axes.annotate(
            note,
            (1, row),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=_KEY_SIZE,
        )
    return figure, axes


def _reach(found: Sequence[Delta], floor: float | None) -> float:
    """How far the axis goes to each side. A diverged run's difference would flatten all others."""
    calm = [d for d in found if d.pairs and not any(pair.diverged for pair in d.pairs)]
    shown = calm or [delta for delta in found if delta.pairs]
    ends = [abs(pair.delta) for delta in shown for pair in delta.pairs]
    ends += [abs(d.delta.mean) + d.delta.std for d in shown if d.delta.n > 1]
    return 1.15 * max([*ends, floor or 0.0]) or 0.01


def _draw_delta(axes: Axes, row: int, delta: Delta, reach: float) -> None:
    values, ink = delta.delta, colour(1)
    if not values.n:
        return
    if abs(values.mean) > reach:
        edge, marker = math.copysign(0.97 * reach, values.mean), ">" if values.mean > 0 else "<"
        axes.plot([edge], [row], marker, color=ink, markersize=8, markerfacecolor="none")
        return
    if values.n > 1:
        xs = [pair.delta for pair in delta.pairs]
        axes.plot(xs, [row + 0.24] * len(xs), "o", color=ink, alpha=0.6, markersize=3.5)
        axes.errorbar(values.mean, row, xerr=values.std, color=ink, linewidth=1.4, capsize=0)
    filled = not any(pair.diverged for pair in delta.pairs)
    axes.plot(
        [values.mean],
        [row],
        "o",
        color=ink,
        markersize=8,
        markerfacecolor=ink if filled else "none",
    )
