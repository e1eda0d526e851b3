"""The usual charts of a report: data frames -> Vega-Lite, for the picture and the page alike.

Layers whose name begins with ``hover`` are on the page alone, and those with ``wide`` are left out on a
phone; see :mod:`altgrad_core.report.pictures` and ``report.js``. Sections of any author may import this
module; it imports Altair, so import it where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from altgrad_core.interfaces.blocks import Chart
from altgrad_core.report.theme import (
    GREY,
    INK,
    PALETTE,
    finished,
    in_panels,
    in_rows,
    pen,
    scale,
    tips,
)

_POINTS = 60
"""Points of a drawn curve; longer ones are thinned."""
_SEEDS = 8
"""Seeds whose own curves are drawn beside the mean of all."""
_TINT = 0.55
"""Opacity of the strongest cell of a heat map: its number stays readable."""
_FAR = 4.0
"""An interval reaches this many times as far as the largest difference, at most."""


def forest(
    name: str,
    caption: str,
    rows: pd.DataFrame,
    seeds: pd.DataFrame | None = None,
    *,
    title: str,
    margin: float | None = None,
    floor: float | None = None,
) -> Chart:
    """A row per difference, around a line at 0.

    ``rows`` has ``group, centre, low, high``, and may have ``note`` (text at the right) and ``control``
    (bool: in grey); ``seeds`` has ``group, seed, value`` (small dots). ``margin`` is a dashed line on
    each side of 0, ``floor`` a grey band: differences that controls have, too.
    """
    control = rows.get("control", pd.Series(False, index=rows.index)).astype(bool)
    known = rows.assign(note=rows.get("note", ""), kind=control.map({True: "control", False: ""}))
    dots = pd.DataFrame(columns=["group", "seed", "value"]) if seeds is None else seeds
    y = alt.Y("group:N", sort=list(rows["group"]), title=None, axis=alt.Axis(grid=True))
    reach = _reach(known, dots, margin, floor)
    domain = alt.Scale(domain=[-reach, reach], nice=False)
    x = alt.X("centre:Q", title=title, scale=domain, axis=alt.Axis(tickCount=5))
    colour = alt.Color("kind:N", legend=None, scale=scale(("", "control"), (PALETTE[1], GREY)))
    shape = alt.Shape("kind:N", legend=None, scale=scale(("", "control"), ("circle", "diamond")))
    told = tips(group="group:N", mean="centre:Q", low="low:Q", high="high:Q", note="note:N")
    base = alt.Chart(known).encode(y=y)
    bar = base.mark_rule(strokeWidth=2, clip=True)
    mean = base.mark_point(size=70, filled=True, opacity=1)
    note = base.mark_text(align="left", dx=8).encode(x=alt.value("width"), text="note:N")
    layers = [
        *([_band(floor)] if floor else []),
        _vertical(0.0),
        *([_vertical(-margin, margin, strokeDash=[5, 4])] if margin else []),
        bar.encode(x="low:Q", x2="high:Q", color=colour),
        alt.Chart(dots)
        .mark_circle(size=22, opacity=0.45, color=INK)
        .encode(y=y, x="value:Q", tooltip=tips(group="group:N", seed="seed:N", value="value:Q")),
        mean.encode(x=x, color=colour, shape=shape, tooltip=told),
        note.properties(name="wide_note"),
    ]
    return finished(name, caption, in_rows(alt.layer(*layers), len(known)))


def curves(
    name: str,
    caption: str,
    data: pd.DataFrame,
    *,
    title: str,
    xlabel: str = "step",
    log_x: bool = False,
) -> Chart:
    """Lines over steps, a panel per group, each side of which can be switched off.

    ``data`` has ``panel, side, seed, step, value``, and may have ``diverged`` (bool: of a run that
    diverged; a cross marks its last finite value, and it does not set the axis). With several seeds
    each of the first few is thin and the mean of all thick.
    """
    points = data.assign(diverged=data.get("diverged", False))
    points = points[points["value"].abs() < math.inf]
    sides = list(dict.fromkeys(points["side"]))
    limits = _limits(points)
    drawn = _lines(points.assign(k=points["side"].map(sides.index)), limits)
    axis = alt.Scale(type="log" if log_x else "linear", nice=False)
    x = alt.X("step:Q", title=xlabel, scale=axis, axis=alt.Axis(tickCount=4))
    height = alt.Scale(domain=limits, nice=False, zero=False)
    y = alt.Y("value:Q", title=title, scale=height, axis=alt.Axis(tickCount=5))
    colours, dashes = zip(*map(pen, range(len(sides))), strict=True)
    colour = alt.Color("side:N", title=None, scale=scale(sides, colours))
    dash = alt.StrokeDash("side:N", title=None, scale=scale(sides, dashes))
    told = tips(panel="panel:N", side="side:N", step="step:Q", value="value:Q")
    params, shown = _toggles(sides)

    def kind(which: str) -> Any:
        chosen = alt.Chart().transform_filter(shown).transform_filter(alt.datum.kind == which)
        return chosen.encode(x=x, y=y)

    line = {"color": colour, "strokeDash": dash}
    layers = [
        kind("seed")
        .mark_line(strokeWidth=1, opacity=0.4, clip=True)
        .encode(detail="seed:N", **line),
        kind("mean").mark_line(strokeWidth=2, clip=True).encode(**line),
        kind("end").mark_point(shape="cross", angle=45, size=60, filled=True).encode(color=colour),
        kind("mean")
        .mark_circle(size=90, opacity=0, clip=True)
        .encode(tooltip=told)
        .properties(name="hover_points"),
    ]
    count = points.groupby(["panel", "side"])["seed"].nunique().max()
    few = f" Thin: the first {_SEEDS} seeds." if count > _SEEDS else ""
    return finished(name, caption + few, in_panels(layers, drawn, 150).add_params(*params))


def bars(name: str, caption: str, data: pd.DataFrame, *, title: str) -> Chart:
    """A bar per row. ``data`` has ``label, value``, and may have ``note`` (at the bar's end), ``side``."""
    known = data.assign(note=data.get("note", ""), side=data.get("side", ""))
    order = list(dict.fromkeys(known["side"]))
    room = 1.2 if known["note"].astype(bool).any() else 1.0
    most = alt.Scale(domainMax=room * max(_numbers(known, "value"), default=1.0))
    legend = alt.Legend(title=None, symbolType="square") if any(order) else None
    pens = scale(order, [pen(place)[0] for place in range(len(order))])
    base = alt.Chart(known).encode(
        y=alt.Y("label:N", sort=list(known["label"]), title=None),
        x=alt.X("value:Q", title=title, axis=alt.Axis(tickCount=5), scale=most),
    )
    bar = base.mark_bar().encode(
        color=alt.Color("side:N", scale=pens, legend=legend),
        tooltip=tips(label="label:N", value="value:Q", note="note:N"),
    )
    note = base.mark_text(align="left", dx=6).encode(text="note:N").properties(name="wide_note")
    return finished(name, caption, in_rows(alt.layer(bar, note), len(known)))


def scatter(name: str, caption: str, data: pd.DataFrame, *, ylabel: str) -> Chart:
    """Named points, a panel per property, a line at 0. ``data`` has ``panel, label, x, y``."""
    room = alt.Scale(zero=False, padding=24)
    x = alt.X("x:Q", title=None, scale=room, axis=alt.Axis(tickCount=4))
    y = alt.Y("y:Q", title=ylabel, scale=alt.Scale(padding=16), axis=alt.Axis(tickCount=5))
    base = alt.Chart().encode(x=x, y=y)
    told = tips(panel="panel:N", label="label:N", x="x:Q", y="y:Q")
    layers = [
        alt.Chart().mark_rule(opacity=0.6).encode(y=alt.datum(0)),
        base.mark_circle(size=60, color=PALETTE[1], opacity=1).encode(tooltip=told),
        base.mark_text(align="left", dx=6, dy=-6, fontSize=11).encode(text="label:N"),
    ]
    chart = in_panels(layers, data, 170).resolve_scale(x="independent")
    return finished(name, caption, chart)


def heat(name: str, caption: str, data: pd.DataFrame) -> Chart:
    """Numbers in tinted cells: blue above 0, orange below, stronger the further from it.

    ``data`` has ``row, column, value`` (NaN: not tinted) and ``text``, what is written in the cell.
    """
    most = max(map(abs, _numbers(data, "value")), default=0) or 1.0
    bare: dict[str, Any] = {"domain": False, "ticks": False}
    top = alt.Axis(orient="top", labelAngle=0, labelLimit=120, **bare)
    columns, rows = (list(dict.fromkeys(data[name])) for name in ("column", "row"))
    base = alt.Chart(data).encode(
        x=alt.X("column:N", sort=columns, title=None, axis=top),
        y=alt.Y("row:N", sort=rows, title=None, axis=alt.Axis(**bare)),
    )
    tinted = base.transform_calculate(strength="abs(datum.value)").mark_rect()
    tint = tinted.encode(
        color=alt.condition(alt.datum.value >= 0, alt.value(PALETTE[0]), alt.value(PALETTE[1])),
        opacity=alt.Opacity(
            "strength:Q", scale=alt.Scale(domain=[0, most], range=[0, _TINT]), legend=None
        ),
        tooltip=tips(row="row:N", column="column:N", value="text:N"),
    )
    text = base.mark_text(fontSize=11).encode(text="text:N")
    return finished(name, caption, in_rows(alt.layer(tint, text), len(rows)))


def _reach(
    rows: pd.DataFrame, dots: pd.DataFrame, margin: float | None, floor: float | None
) -> float:
    """How far a forest's axis goes: as far as its intervals, unless these flatten all differences."""
    centres = [*_numbers(rows, "centre"), *_numbers(dots, "value"), margin or 0.0, floor or 0.0]
    widest = max(map(abs, centres)) or 1.0
    ends = [abs(end) for end in _numbers(rows, "low", "high")]
    return 1.05 * min(max([*ends, widest]), _FAR * widest)


def _band(half: float) -> Any:
    """A grey band around 0."""
    marks = alt.Chart(pd.DataFrame({"from": [-half], "to": [half]}))
    return marks.mark_rect(color=GREY, opacity=0.2).encode(x="from:Q", x2="to:Q")


def _vertical(*places: float, **style: Any) -> Any:
    """Thin vertical lines."""
    marks = alt.Chart(pd.DataFrame({"at": places})).mark_rule(strokeWidth=1, **style)
    return marks.encode(x="at:Q")


def _toggles(sides: Sequence[str]) -> tuple[list[Any], str]:
    """A check box per side, and the expression that is true of the points of those that are on."""
    params = [
        alt.param(name=f"show_{k}", value=True, bind=alt.binding_checkbox(name=side))
        for k, side in enumerate(sides)
    ]
    return params, " || ".join(f"(show_{k} && datum.k === {k})" for k in range(len(sides)))


def _lines(points: pd.DataFrame, limits: Sequence[float]) -> pd.DataFrame:
    """What is drawn, by ``kind``: thinned curves of the seeds, their means, ends of diverged runs."""
    run, line = ["panel", "side", "k", "seed"], ["panel", "side", "k"]
    lost = (
        points[points["diverged"].astype(bool)].sort_values("step").groupby(run, sort=False).tail(1)
    )
    means = points.groupby([*line, "step"], sort=False)["value"].mean().reset_index()
    parts = [
        _thinned(means, line).assign(kind="mean"),
        lost.assign(kind="end", value=lost["value"].clip(*limits)),
    ]
    if points["seed"].nunique() > 1:
        few = points["seed"].isin(sorted(points["seed"].unique())[:_SEEDS])
        parts.insert(0, _thinned(points[few], run).assign(kind="seed"))
    return pd.concat(parts, ignore_index=True)[["kind", *run, "step", "value"]]


def _thinned(points: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """At most ``_POINTS`` points of each curve, its last one among them."""
    curves = points.sort_values("step", kind="stable").groupby(list(keys), sort=False)["step"]
    left = curves.cumcount(ascending=False)
    every = -(-curves.transform("size") // _POINTS)
    return points.loc[left.index[left % every == 0]]


def _limits(points: pd.DataFrame) -> list[float]:
    """The axis of curves: what runs that did not diverge need."""
    calm = points[~points["diverged"].astype(bool)]
    values = _numbers(calm if len(calm) else points, "value") or [0.0, 1.0]
    room = 0.05 * (max(values) - min(values)) or 0.05
    return [min(values) - room, max(values) + room]


def _numbers(data: pd.DataFrame, *names: str) -> list[float]:
    """The finite values of some columns."""
    return [float(value) for name in names for value in data[name] if math.isfinite(value)]
