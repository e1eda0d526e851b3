"""The charts: what is in their data, and that each can be drawn, with hostile names too."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from altgrad_core.interfaces.blocks import Chart
from altgrad_core.report import charts
from altgrad_core.report.pictures import page_spec, static_spec, to_svg


def data(chart: Chart, *needed: str) -> list[dict[str, Any]]:
    """The records of the data set with these columns."""
    sets = [s for s in chart.spec["datasets"].values() if s and set(needed) <= set(s[0])]
    assert len(sets) == 1
    found: list[dict[str, Any]] = sets[0]
    return found


def loss(diverged: bool = False, seeds: int = 2, steps: int = 1000) -> pd.DataFrame:
    rows = [
        (side, seed, step, math.inf if lost and step > 500 else 100.0 if lost and step > 400 else 1 / step, lost)
        for side in ("adamw", "manifold")
        for seed in range(seeds)
        for lost in [diverged and side == "manifold" and seed == 1]
        for step in range(1, steps + 1)
    ]  # fmt: skip
    names = ["side", "seed", "step", "value", "diverged"]
    return pd.DataFrame(rows, columns=names).assign(panel="e5m2")


@pytest.mark.parametrize("place", range(5))
def test_every_chart_is_drawn_with_hostile_names(sample_document: ModuleType, place: int) -> None:
    evil = sample_document.EVIL
    chart = sample_document.charts((evil, f"2{evil}"), f"{evil}\x00\x1b")[place]
    root = ElementTree.fromstring(to_svg(chart))
    names = {element.tag.partition("}")[2] for element in root.iter()}
    assert names <= {
        "svg",
        "g",
        "path",
        "text",
        "line",
        "rect",
        "style",
        "defs",
        "clipPath",
        "title",
    }
    attributes = {name for element in root.iter() for name in element.attrib}
    assert not {name for name in attributes if name.startswith("on") or "href" in name}
    assert "window.pwned" in "".join(root.itertext())


def test_curves_are_thinned_and_keep_their_ends() -> None:
    found = data(charts.curves("a", "A.", loss(), title="loss"), "kind")
    for kind, lines in (("seed", 4), ("mean", 2)):
        points = [point for point in found if point["kind"] == kind]
        assert 50 * lines <= len(points) <= 60 * lines
        assert max(point["step"] for point in points) == 1000
    means = {point["step"]: point["value"] for point in found if point["kind"] == "mean"}
    assert means[1000] == pytest.approx(1 / 1000)


def test_one_seed_is_drawn_once() -> None:
    found = data(charts.curves("a", "A.", loss(seeds=1), title="loss"), "kind")
    assert {point["kind"] for point in found} == {"mean"}


def test_a_diverged_run_sets_no_axis_and_ends_in_a_cross() -> None:
    chart = charts.curves("a", "A.", loss(diverged=True), title="loss")
    (end,) = [point for point in data(chart, "kind") if point["kind"] == "end"]
    assert (end["side"], end["step"]) == ("manifold", 500)
    top = 1 + 0.05 * (1 - 1 / 1000)
    assert end["value"] == pytest.approx(top)
    domains = [layer["encoding"]["y"]["scale"]["domain"] for layer in chart.spec["spec"]["layer"]]
    assert domains[0] == pytest.approx([1 / 1000 - (top - 1), top])


def test_each_side_has_a_check_box_on_the_page_alone() -> None:
    chart = charts.curves("a", "A.", loss(), title="loss")
    assert [param["bind"]["name"] for param in chart.spec["params"]] == ["adamw", "manifold"]
    assert all("bind" not in param for param in static_spec(chart.spec)["params"])


def test_layers_for_the_page_alone_are_not_in_the_picture() -> None:
    chart = charts.curves("a", "A.", loss(), title="loss")
    layers = chart.spec["spec"]["layer"]
    assert [layer.get("name", "").startswith("hover") for layer in layers] == [False] * 3 + [True]
    assert len(static_spec(chart.spec)["spec"]["layer"]) == 3


def test_lines_beyond_the_fourth_are_dashed() -> None:
    many = pd.concat(loss(seeds=1).assign(side=f"side {k}") for k in range(6))
    chart = charts.curves("a", "A.", many, title="loss")
    scale = chart.spec["spec"]["layer"][0]["encoding"]["strokeDash"]["scale"]
    assert scale["domain"] == [f"side {k}" for k in range(6)]
    assert [dashes == [1, 0] for dashes in scale["range"]] == [True] * 4 + [False] * 2


def test_an_interval_that_is_far_too_wide_does_not_flatten_the_others() -> None:
    rows = pd.DataFrame(
        {"group": ["a", "b"], "centre": [0.01, 0.02], "low": [-9.0, 0.01], "high": [9.0, 0.03]}
    )
    spec = charts.forest("f", "F.", rows, title="gain", margin=0.005).spec
    (x,) = [v["encoding"]["x"] for v in spec["layer"] if "centre" in str(v["encoding"].get("x"))]
    assert x["scale"]["domain"] == pytest.approx([-0.084, 0.084])


def test_the_forest_has_its_margin_and_band_only_where_there_are_some() -> None:
    rows = pd.DataFrame({"group": ["a"], "centre": [0.01], "low": [0.0], "high": [0.02]})
    plain = charts.forest("f", "F.", rows, title="gain").spec["layer"]
    full = charts.forest("f", "F.", rows, title="gain", margin=0.005, floor=0.001).spec["layer"]
    assert len(full) == len(plain) + 2


def test_a_page_gets_its_data_in_half_the_room_and_all_of_it() -> None:
    chart = charts.curves("a", "A.", loss(), title="loss")
    found = page_spec(chart.spec)
    ((name, packed),) = found["datasets"].items()
    records = [dict(zip(packed["columns"], row, strict=True)) for row in packed["rows"]]
    for record, original in zip(records, chart.spec["datasets"][name], strict=True):
        assert record["side"] == original["side"]
        assert record["value"] == pytest.approx(original["value"], rel=1e-4)
    assert len(str(found)) < 0.6 * len(str(chart.spec))


def test_tints_say_the_sign_and_leave_gaps() -> None:
    table = pd.DataFrame(
        {"row": ["a", "a"], "column": ["x", "y"], "value": [math.nan, -2.0], "text": ["–", "−2"]}
    )
    chart = charts.heat("h", "H.", table)
    assert [cell["value"] for cell in data(chart, "row")] == [None, -2.0]
    svg = to_svg(chart)
    assert svg.count("#d55e00") == 1
