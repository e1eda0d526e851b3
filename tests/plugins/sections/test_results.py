"""The main table counts runs as its documentation says, and as the terminal does."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from planted import judged, make_suite, noisy
from rich.console import Console

from altgrad_core.analysis.words import score as written
from altgrad_core.interfaces.blocks import Table
from altgrad_core.registry.catalog import catalog
from altgrad_core.report.terminal import main_table


@pytest.mark.parametrize(
    ("lost", "status"),
    [(None, "4 ok, 1 diverged"), (math.nan, "5 ok")],
    ids=["diverged", "no number"],
)
def test_a_run_that_lost_its_score_has_the_worst(lost: float | None, status: str) -> None:
    even = noisy({}, 0.0)

    def score(fmt: str, side: str, seed: int) -> float | None:
        return lost if (fmt, side, seed) == ("e5m2", "new", 4) else even(fmt, side, seed)

    found = judged(make_suite(score))
    scores = found.runs.set_index(["condition", "seed"])["final/test/accuracy"]
    expected = scores["e5m2_new"].fillna(0.0)
    (table,) = (
        b for b in catalog().build("section", "results").build(found) if isinstance(b, Table)
    )
    shown = {column.title: place for place, column in enumerate(table.columns)}
    row = next(row for row in table.rows if row[0].text == "e5m2_new")
    assert row[shown["Status"]].text == status
    assert row[shown["Status"]].tone == "bad"
    said = f"{expected.mean():.4f} ± {expected.std():.4f}"
    assert row[shown["Accuracy"]].text == said
    over = (expected - scores["bf16_old"]).mean()
    assert row[shown["Over bf16_old"]].text == written(over, signed=True)
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(main_table(found))
    assert said in console.export_text()


@pytest.mark.parametrize("status", ["killed", "error"])
def test_a_run_without_a_result_enters_no_mean(status: str) -> None:
    found = judged(make_suite(noisy({}, 0.0)))
    measured = found.runs.assign(**{"flips/all/stall_ratio@mean": 0.5})
    first = measured["condition"].eq("e5m2_new") & measured["seed"].eq(0)
    measured.loc[first, ["flips/all/stall_ratio@mean", "status"]] = (0.9, status)
    found = replace(found, runs=measured)
    (table,) = (
        b for b in catalog().build("section", "results").build(found) if isinstance(b, Table)
    )
    shown = {column.title: place for place, column in enumerate(table.columns)}
    stalls = {row[0].text: row[shown["Stalls (%)"]].text for row in table.rows}
    assert stalls["e5m2_new"] == stalls["e5m2_old"] == "50.0"
