"""Which way is better is what the task declares, whatever the metric is called."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from altgrad_core.analysis.findings import find
from altgrad_core.errors import UserError
from altgrad_core.results.stored import read_suite


def _perplexities(fabricated: ModuleType, folder: Path, metrics: Any) -> None:
    def lines(fmt: str, optimizer: str, seed: int) -> list[str]:
        value = 30.0 + seed + (5.0 if optimizer == "manifold_adamw" else 0.0)
        return [fabricated.line(100, "final", {"final/test/perplexity": value})]

    contrast = {**fabricated.CONTRAST, "metric": "final/test/perplexity"}
    fabricated.write_matrix(
        folder, ["e5m2"], [0, 1, 2, 3], lines, contrast=contrast, metrics=metrics
    )


def test_a_perplexity_that_rises_is_a_loss(fabricated: ModuleType, tmp_path: Path) -> None:
    declaration = {"name": "perplexity", "label": "P", "direction": "lower", "primary": True}
    _perplexities(fabricated, tmp_path / "a", [declaration])
    (delta,) = find(read_suite(tmp_path / "a")).deltas
    assert delta.delta.mean == pytest.approx(5.0)
    assert (delta.gain, delta.improved) == (pytest.approx(-5.0), 0)
    higher = {**declaration, "direction": "higher"}
    _perplexities(fabricated, tmp_path / "b", [higher])
    (delta,) = find(read_suite(tmp_path / "b")).deltas
    assert (delta.gain, delta.improved) == (pytest.approx(5.0), 4)


def test_results_that_declare_nothing_are_not_guessed_at(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    _perplexities(fabricated, tmp_path / "a", [])
    for file in (tmp_path / "a").glob("*/spec.yaml"):
        text = file.read_text()
        file.write_text(text[: text.index("metrics:")])
    suite = read_suite(tmp_path / "a")
    with pytest.raises(
        UserError, match=r"does not say what its task measures.*Run the suite again"
    ):
        find(suite)
    plan = json.loads((tmp_path / "a" / "plan.json").read_text())
    plan["metrics"] = [{"name": "loss", "label": "Loss", "direction": "lower", "primary": True}]
    (tmp_path / "a" / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match="none that the task declares; it has loss"):
        find(read_suite(tmp_path / "a"))
