"""What the plots show, and that their SVG is clean, deterministic and readable on any page."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pandas as pd
import pytest

from altgrad_core.analysis.contrast import Delta, Pair
from altgrad_core.analysis.curves import Line, Panel, panels, upper_limit
from altgrad_core.analysis.plot_style import PALETTE, pen
from altgrad_core.analysis.plots import (
    Interval,
    key_lines,
    plot_curves,
    plot_deltas,
    plot_intervals,
    plot_throughput,
)
from altgrad_core.analysis.svg import Pen, attribute, series_in, standalone, text_width
from altgrad_core.results.collect import load_curves, load_results
from altgrad_core.results.stored import Contrast

CONTRAST = Contrast(
    axis="optimizer.type",
    baseline="adamw",
    treatment="manifold_adamw",
    metric="final/test/f1_micro_tuned",
)
LOSS = "train/all/loss"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def suite(fabricated: ModuleType, tmp_path: Path) -> Path:
    """Two formats, two seeds; e5m2 with adamw diverges at once after step 2."""
    f, cells = fabricated, []
    for fmt in ("bf16", "e5m2"):
        for optimizer in ("adamw", "manifold_adamw"):
            for seed in (0, 1):
                bad = (fmt, optimizer) == ("e5m2", "adamw")
                losses = [1.0, 0.5, 1e30 if bad else 0.25, math.nan if bad else 0.125]
                lines = [
                    f.line(step, "train", {LOSS: value + seed})
                    for step, value in enumerate(losses, 1)
                ]
                status = "diverged" if bad else "ok"
                run = f.write_run(tmp_path, fmt, optimizer, seed, lines=lines, status=status)
                cells.append(f.cell(fmt, optimizer, seed, run))
    f.write_plan(tmp_path, cells)
    return tmp_path


def loss_panels(suite: Path) -> list[Panel]:
    return panels(load_results(suite), load_curves(suite, [LOSS]), LOSS, CONTRAST)


def drawn(suite: Path, salt: str = "x") -> str:
    found = loss_panels(suite)
    return plot_curves(
        found,
        ylabel="loss ($)",
        limits=(None, 2.0),
        lines=key_lines(found),
        columns=3,
        salt=salt,
    )


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_panel_per_group_with_both_sides_and_the_reference(suite: Path) -> None:
    bf16, e5m2 = loss_panels(suite)
    assert (bf16.title, e5m2.title) == ("bf16", "e5m2")
    assert [(line.label, line.rank) for line in bf16.lines] == [("adamw", 0), ("manifold_adamw", 1)]
    assert [(line.label, line.rank) for line in e5m2.lines] == [
        ("bf16_adamw", None),
        ("adamw", 0),
        ("manifold_adamw", 1),
    ]


def test_lines_average_the_seeds_and_end_where_a_run_diverged(suite: Path) -> None:
    bf16, e5m2 = loss_panels(suite)
    assert bf16.lines[0].mean.tolist() == [1.5, 1.0, 0.75, 0.625]
    assert [len(line.seeds) for line in e5m2.lines] == [2, 2, 2]
    assert e5m2.lines[1].ends == ((3.0, 1e30), (3.0, 1e30))
    assert not bf16.lines[0].ends


def test_a_diverging_loss_does_not_set_the_axis(suite: Path) -> None:
    results, curves = load_results(suite), load_curves(suite, [LOSS])
    assert upper_limit(loss_panels(suite), results, curves, LOSS) == 2.0
    only_bad = results[results["status"] == "diverged"]
    assert upper_limit(loss_panels(suite), only_bad, curves, LOSS) == 1e30


def test_smoothing_is_a_running_mean(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    lines = [f.line(step, "train", {LOSS: float(step % 2)}) for step in range(1, 61)]
    f.write_run(tmp_path, "e5m2", "adamw", 0, lines=lines)
    results, curves = load_results(tmp_path), load_curves(tmp_path, [LOSS])
    (rough,) = panels(results, curves, LOSS, None)
    (smooth,) = panels(results, curves, LOSS, None, smooth=True)
    assert set(rough.lines[0].mean) == {0.0, 1.0}
    assert smooth.lines[0].mean.iloc[1:-1].round(6).isin([0.333333, 0.666667]).all()


def test_without_a_contrast_a_panel_has_the_conditions_of_a_format(suite: Path) -> None:
    results, curves = load_results(suite), load_curves(suite, [LOSS])
    found = panels(results, curves, LOSS, None)
    assert [line.label for line in found[0].lines] == ["bf16_adamw", "bf16_manifold_adamw"]
    assert panels(results, curves, "no/such/metric", CONTRAST) == []


def test_svg_is_well_formed_text_without_background_date_or_outside_reference(suite: Path) -> None:
    svg = drawn(suite)
    root = ET.fromstring(svg)
    assert root.get("viewBox") == f"0 0 580 {root.get('height')}"
    assert root.get("role") == "img"
    assert {"bf16", "e5m2", "loss ($)", "step", "adamw, diverged"} <= set(texts(svg))
    assert "currentColor" in svg
    assert not re.search(r"#010203|#ffffff|#000000|<style|<metadata|<!DOCTYPE|DejaVu", svg)
    assert re.findall(r'"https?://[^"]*"', svg) == [
        '"http://www.w3.org/2000/svg"',
        '"http://www.w3.org/1999/xlink"',
    ]


def test_every_mark_of_a_line_carries_its_name(suite: Path) -> None:
    svg = drawn(suite)
    groups = list(ET.fromstring(svg).iter(f"{SVG}g"))
    lines = [g.get("data-series") for g in groups if g.get("class") == "series"]
    # Per line: two seeds and their mean; the diverged one has a cross for each seed as well.
    panel = {"bf16": {"adamw": 3, "manifold_adamw": 3}}
    panel["e5m2"] = {"bf16_adamw": 3, "adamw": 5, "manifold_adamw": 3}
    for name in ("adamw", "manifold_adamw", "bf16_adamw"):
        assert lines.count(name) == sum(one.get(name, 0) for one in panel.values())
    keys = [g.get("data-series") for g in groups if g.get("class") == "key"]
    assert len(keys) == 2 * 5  # a stroke and a text for each entry
    assert series_in(svg) == {
        "adamw": Pen(PALETTE[0]),
        "manifold_adamw": Pen(PALETTE[1]),
        "bf16_adamw": pen(None),
    }
    assert "-mark-" not in svg


def test_pens_differ_in_colour_or_dashes() -> None:
    first = [pen(rank) for rank in range(18)]
    assert len(set(first)) == 18
    assert {one.dash for one in first[:4]} == {"solid"}
    assert all(one.dash != "solid" for one in first[4:16])
    assert pen(None) not in first


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("page", ["#ffffff", "#0f1419"])
def test_every_colour_stands_out_on_light_and_on_dark_pages(page: str) -> None:
    for colour in (*PALETTE, pen(None).colour):
        low, high = sorted([luminance(colour), luminance(page)])
        assert (high + 0.05) / (low + 0.05) >= 3, colour


def test_learning_rates_stand_on_a_logarithmic_axis() -> None:
    series = pd.Series([0.1, 0.5, 0.3], index=[1e-4, 1e-3, 1e-2])
    found = [Panel("p", (Line("a", 0, (series,), series, ()),))]
    svg = plot_curves(
        found,
        ylabel="F1",
        limits=(0.0, 1.0),
        lines=1,
        columns=1,
        salt="x",
        xlabel="learning rate",
        log_x=True,
    )
    assert {"learning rate", "0.0001", "0.001", "0.01"} <= set(texts(svg))
    (path,) = [
        g.find(f"{SVG}path")
        for g in ET.fromstring(svg).iter(f"{SVG}g")
        if g.get("data-series") == "a" and g.get("class") == "series"
    ]
    assert path is not None
    xs = [float(x) for x in re.findall(r"[ML] ([\d.]+) ", path.get("d", ""))]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])


def test_a_name_that_a_picture_cannot_hold_is_replaced(suite: Path) -> None:
    assert attribute('a\x00"<') == "a\N{REPLACEMENT CHARACTER}&quot;&lt;"
    series = pd.Series([1.0], index=[1])
    panel = Panel("bad \x01", (Line('x" \x02', 0, (series,), series, ()),))
    svg = plot_curves([panel], ylabel="y", limits=(0, 1), lines=1, columns=1, salt="x")
    assert list(series_in(svg)) == ['x" \N{REPLACEMENT CHARACTER}']
    assert "bad \N{REPLACEMENT CHARACTER}" in texts(svg)


def test_the_same_numbers_give_the_same_bytes_whatever_the_users_settings(suite: Path) -> None:
    first = drawn(suite)
    before = dict(mpl.rcParams)
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path"}):
        assert drawn(suite) == first
    assert dict(mpl.rcParams) == before
    assert drawn(suite, salt="y") != first


def test_a_file_of_its_own_follows_light_and_dark(suite: Path) -> None:
    text = standalone(drawn(suite))
    assert text.startswith("<?xml")
    assert "prefers-color-scheme:dark" in text
    assert ET.fromstring(text).tag == f"{SVG}svg"


def pair(seed: int, delta: float, *, diverged: bool = False) -> Pair:
    return Pair(seed, 0.5, 0.5 + delta, diverged)


def marks(svg: str) -> int:
    """How many points are drawn: uses of a marker that are not ticks."""
    root = ET.fromstring(svg)
    ticks = {id(u) for g in root.iter(f"{SVG}g") if "tick" in g.get("id", "") for u in g.iter()}
    return sum(1 for use in root.iter(f"{SVG}use") if id(use) not in ticks)


def test_differences_show_seeds_means_and_what_is_not_there() -> None:
    found = [
        Delta("three", "m", (pair(0, 0.01), pair(1, 0.02), pair(2, 0.03)), ()),
        Delta("one", "m", (pair(0, -0.01),), ()),
        Delta("none", "m", (), (0,)),
    ]
    svg = plot_deltas(found, xlabel="Δ F1", floor=0.005, salt="d")
    assert {"+0.0200 ± 0.0100", "−0.0100", "no pair yet", "three", "Δ F1"} <= set(texts(svg))
    assert marks(svg) == 3 + 1 + 1  # three seeds and their mean, and one alone


def test_a_difference_from_divergence_is_named_and_does_not_set_the_axis() -> None:
    calm = [Delta("calm", "m", (pair(0, 0.01),), ())]
    wild = [Delta("wild", "m", (pair(0, -0.5, diverged=True),), ())]
    svg = plot_deltas([*calm, *wild], xlabel="Δ", floor=None, salt="d")
    ticks = [t.replace("−", "-") for t in texts(svg)]
    numbers = [float(t) for t in ticks if re.fullmatch(r"-?[\d.]+", t)]
    assert "-0.5000" in ticks  # as its note
    assert max(abs(n) for n in numbers if n != -0.5) <= 0.02
    assert marks(plot_deltas(wild, xlabel="Δ", floor=None, salt="d")) == 1


def test_intervals_reach_from_end_to_end_beside_the_margin() -> None:
    rows = [
        Interval("sure", "0.03 [0.02, 0.04]", 0.03, 0.02, 0.04, (0.025, 0.035)),
        Interval("alone", "−0.01", -0.01),
        Interval("none", "no pair yet", math.nan),
    ]
    svg = plot_intervals(rows, xlabel="Δ", margin=0.01, salt="i")
    assert {"sure", "0.03 [0.02, 0.04]", "no pair yet"} <= set(texts(svg))
    assert marks(svg) == 2 + 1 + 1
    paths = [path.get("d", "") for path in ET.fromstring(svg).iter(f"{SVG}path")]
    flat = [re.findall(r"([\d.]+) ([\d.]+)", d) for d in paths]
    spans = [
        (float(a[0]), float(b[0]))
        for a, b in (corners for corners in flat if len(corners) == 2)
        if a[1] == b[1]
    ]
    dashed = [
        d
        for d, p in zip(paths, ET.fromstring(svg).iter(f"{SVG}path"), strict=True)
        if "stroke-dasharray" in p.get("style", "")
    ]
    upright = sorted(float(re.findall(r"[\d.]+", d)[0]) for d in dashed)
    assert len(upright) == 2
    unit = (upright[1] - upright[0]) / 2  # 0.01, the margin
    zero = sum(upright) / 2
    assert any(
        math.isclose(a, zero + 2 * unit, abs_tol=0.1)
        and math.isclose(b, zero + 4 * unit, abs_tol=0.1)
        for a, b in spans
    )


def test_equal_sides_have_an_axis_too() -> None:
    svg = plot_deltas([Delta("a", "m", (pair(0, 0.0),), ())], xlabel="Δ", floor=0.0, salt="d")
    assert "0.0000" in texts(svg)


def test_throughput_has_a_bar_and_a_number_for_each_condition() -> None:
    table = pd.DataFrame(
        {
            "condition": ["a", "b", "c"],
            "samples_per_second": [200.0, 100.0, math.nan],
            "relative_throughput": [1.0, 0.5, math.nan],
        }
    )
    svg = plot_throughput(table, [0, 1, 0], salt="t")
    assert {"a", "b", "c", "200 (1.00×)", "100 (0.500×)", "–"} <= set(texts(svg))


def test_long_keys_take_more_lines_and_text_is_measured() -> None:
    assert text_width("mm", 10) > text_width("m", 10) > text_width("i", 10) > 0
    assert text_width(" ", 10) == 0
    line = type("Line", (), {"label": "a_long_name_of_an_optimizer", "ends": ()})
    assert key_lines([Panel("p", (line,))]) == 1
    assert key_lines([Panel("p", (line, line, line))]) == 3
