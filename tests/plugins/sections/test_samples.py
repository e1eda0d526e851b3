"""Baselines, losses by epoch and samples: what is said, and which way is better."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from planted import judged, make_suite, noisy

from altgrad_core.interfaces.blocks import Cell, Paragraph, Table
from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.section import Findings
from altgrad_core.registry.catalog import catalog


@pytest.fixture
def found() -> Findings:
    """Some formats and two optimizers; the score of e3m4 is 0.1 lower."""
    even = noisy({}, 0.0)

    def score(fmt: str, side: str, seed: int) -> float | None:
        return (even(fmt, side, seed) or 0.0) - 0.1 * (fmt == "e3m4")

    return judged(make_suite(score))


def _blocks(found: Findings) -> list[Any]:
    return list(catalog().build("section", "samples").build(found))


def test_without_anything_to_show_there_is_no_section(found: Findings) -> None:
    assert _blocks(replace(found, facts={"t": {"examples": 3}})) == []


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_the_best_is_the_best_in_the_declared_direction(found: Findings, direction: Any) -> None:
    assert found.question is not None
    name = found.question.declared.name
    metric = Metric(name, "Score", direction, primary=True)
    means = found.runs.groupby("condition")[found.question.metric].mean()
    bar = {"unigram": {"test": {name: float(means.min() + means.max()) / 2}}}
    told = replace(
        found,
        question=replace(found.question, declared=metric),
        metrics=(metric,),
        facts={"t": {"baselines": bar}},
    )
    (said,) = _blocks(told)
    assert isinstance(said, Paragraph)
    best, worst = said.text.partition("The best condition, ")[2].split("the worst, ")
    assert best.startswith("e3m4") == (direction == "lower")
    assert worst.startswith("e3m4") == (direction == "higher")
    assert f"{direction} is better" in said.text
    conditions = found.runs["condition"].nunique()
    ahead = 2 if direction == "lower" else conditions - 2
    assert f"{ahead} of {conditions} conditions beat all that only count" in said.text


def test_it_is_said_of_each_baseline_how_many_beat_it(found: Findings) -> None:
    assert found.question is not None
    means = found.runs.groupby("condition")[found.question.metric].mean()
    name, low, high = found.question.declared.name, float(means.min()), float(means.max())
    bars = {"unigram": low - 1, "bigram": (low + high) / 2}
    told = {base: {"test": {name: value}} for base, value in bars.items()}
    (said,) = _blocks(replace(found, facts={"t": {"baselines": told}}))
    assert isinstance(said, Paragraph)
    ahead = int((means > bars["bigram"]).sum())
    assert 0 < ahead < len(means)
    assert said.text.endswith(
        f"{ahead} of {len(means)} conditions beat all that only count; "
        f"{len(means)} beat unigram and {ahead} beat bigram."
    )


def test_losses_are_laid_out_by_epoch(found: Findings) -> None:
    run = found.runs[found.runs["planned"]].iloc[0]
    head = {"id": run["id"], "condition": run["condition"], "panel": "", "side": "", "seed": 0}
    rows = [
        *(("train/all/epoch", step, step / 4) for step in (2, 4, 6, 8)),
        *(
            ("train/all/loss", step, value)
            for step, value in ((2, 4.0), (4, 2.0), (6, 1.5), (8, 0.5))
        ),
        *(("validation/all/loss", step, value) for step, value in ((3, 5.0), (4, 3.0), (7, 2.5))),
    ]
    curves = pd.DataFrame([{**head, "metric": m, "step": s, "value": v} for m, s, v in rows])
    (table,) = _blocks(replace(found, curves=curves, facts={}))
    assert isinstance(table, Table)
    assert [column.title for column in table.columns] == ["Condition", "Epoch 1", "Epoch 2"]
    (row,) = [row for row in table.rows if row[0].text == run["condition"]]
    assert [cell.text for cell in row[1:]] == ["3.00 / 3.00", "1.00 / 2.50"]


def test_each_condition_shows_its_last_sample_and_failures_none(found: Findings) -> None:
    runs = found.runs[found.runs["planned"]]
    events = pd.DataFrame(
        [
            {
                **{key: run[key] for key in ("id", "condition", "format", "seed")},
                "step": step,
                "kind": "sample",
                "layer": "validation",
                "message": f"the act ⟶ seed {run['seed']}\nstep {step}",
            }
            for _, run in runs.iterrows()
            for step in (50, 100)
        ]
    )
    told = replace(found, events=events, facts={})
    (table,) = _blocks(told)
    assert isinstance(table, Table)
    assert [row[0].text for row in table.rows] == list(dict.fromkeys(runs["condition"]))
    seed = runs["seed"].min()
    assert {row[2] for row in table.rows} == {Cell(f"the act ⟶ seed {seed} step 100")}
    assert all(row[0].href for row in table.rows)
    failures = catalog().build("section", "failures")
    assert failures.build(told) == failures.build(replace(told, events=events.iloc[:0]))
