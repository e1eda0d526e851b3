"""The declarations of metrics travel with the table of results."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from altgrad_core.results.collect import load_results
from altgrad_core.results.scores import declaration, worst_score


@pytest.mark.parametrize("worst", [0.25, None])
def test_the_worst_score_is_the_declared_one(
    fabricated: ModuleType, tmp_path: Path, worst: float | None
) -> None:
    fabricated.write_run(tmp_path / "s", "e5m2", "adamw", 0, status="diverged")
    one = {"name": "loss", "label": "L", "direction": "lower", "worst": worst, "primary": True}
    fabricated.write_plan(tmp_path / "s", [], metrics=[one])
    table = load_results(tmp_path / "s")
    table.to_parquet(tmp_path / "t.parquet")
    kept = pd.read_parquet(tmp_path / "t.parquet")
    for runs in (table, table[table["status"] == "diverged"], table.loc[[0]], kept):
        metric = declaration(runs, "final/test/loss")
        assert metric is not None
        assert metric.sign == -1
        score = worst_score(metric)
        assert score == worst if worst is not None else math.isnan(score)


def test_what_is_declared_nowhere_has_no_worst_score(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    fabricated.write_run(tmp_path / "s", "e5m2", "adamw", 0)
    metric = declaration(load_results(tmp_path / "s"), "final/test/perplexity")
    assert metric is None
    assert math.isnan(worst_score(metric))
