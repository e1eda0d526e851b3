"""The error of the test set: gains under other draws of its examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from planted import ACCURACY, effect, judged, make_suite

from altgrad_core.analysis import sampling
from altgrad_core.analysis.sampling import DRAWS, drawn, draws_of, sampling_errors, weights
from altgrad_core.results.kept import Contrast, Declaration, PlannedCell, StoredPlan
from altgrad_core.results.stored import StoredRun, StoredSuite

EXAMPLES = 400


def accuracy(predictions: Mapping[str, Any], drawn: np.ndarray) -> dict[str, np.ndarray]:
    return {"accuracy": drawn @ predictions["right"] / drawn.sum(axis=1)}


def pairs(seeds: int = 1, diverged: str = "") -> pd.DataFrame:
    rows = [("g", f"a{seed}", f"b{seed}", diverged) for seed in range(seeds)]
    return pd.DataFrame(rows, columns=["group", "baseline_id", "treatment_id", "diverged"])


def draws(stored: Mapping[str, Mapping[str, Any]]) -> Callable[[str], np.ndarray | None]:
    """The draws of runs with these predictions, as they are made of what a run has stored."""

    def of(run_id: str) -> np.ndarray | None:
        run: Any = SimpleNamespace(resampled={}, predictions=lambda split: stored[run_id])
        return drawn(run, "final/test/accuracy", accuracy)

    return of


def right(share: float, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).uniform(size=EXAMPLES) < share).astype(float)


def test_weights_draw_with_replacement_and_are_always_the_same() -> None:
    found = weights(EXAMPLES)
    assert found.shape == (DRAWS, EXAMPLES)
    assert set(found.sum(axis=1)) == {EXAMPLES}
    assert found.var() == pytest.approx(1 - 1 / EXAMPLES, rel=0.05)
    np.testing.assert_array_equal(found, weights(EXAMPLES))


def test_it_is_the_standard_error_of_the_paired_difference_over_examples() -> None:
    stored = {"a0": {"right": right(0.6, 1)}, "b0": {"right": right(0.7, 2)}}
    found = sampling_errors(pairs(), ACCURACY, draws(stored))["g"]
    difference = stored["b0"]["right"] - stored["a0"]["right"]
    assert found == pytest.approx(difference.std() / math.sqrt(EXAMPLES), rel=0.15)


def test_examples_that_both_sides_get_right_make_no_error() -> None:
    same = {"right": right(0.6, 1)}
    found = sampling_errors(pairs(), ACCURACY, draws({"a0": same, "b0": same}))
    assert found == {"g": 0.0}


def test_the_same_examples_in_every_seed_do_not_average_out() -> None:
    sides = {"a": {"right": right(0.6, 1)}, "b": {"right": right(0.7, 2)}}
    stored = draws({f"{side}{seed}": sides[side] for side in sides for seed in range(9)})
    few = sampling_errors(pairs(1), ACCURACY, stored)["g"]
    many = sampling_errors(pairs(9), ACCURACY, stored)["g"]
    assert many == pytest.approx(few)


@pytest.mark.parametrize("table", [pairs(diverged="treatment"), pairs()])
def test_without_predictions_it_is_not_known(table: pd.DataFrame) -> None:
    found = sampling_errors(table, ACCURACY, draws({"a0": {}, "b0": {}}))
    assert all(math.isnan(error) for error in found.values())


def test_a_metric_that_the_task_cannot_weigh_is_not_known() -> None:
    run: Any = SimpleNamespace(resampled={}, predictions=lambda split: {"right": right(0.6, 1)})
    assert drawn(run, "final/test/perplexity", accuracy) is None
    assert drawn(run, "final/test/accuracy", None) is None


def test_draws_that_were_kept_take_the_place_of_predictions() -> None:
    run: Any = SimpleNamespace(
        resampled={"final/test/accuracy": np.arange(DRAWS)}, predictions=lambda split: {}
    )
    found = drawn(run, "final/test/accuracy", None)
    assert found is not None
    np.testing.assert_array_equal(found, np.arange(DRAWS))


def test_a_margin_below_the_error_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugins:
        @staticmethod
        def resample(name: str) -> Any:
            return {"toy_task": accuracy}[name]

    monkeypatch.setattr(sampling, "catalog", Plugins)
    shares = {"old": 0.6, "new": 0.62}

    def change(fmt: str, side: str, seed: int) -> Mapping[str, Any]:
        return {"arrays": {"right": right(shares[side], 10 * seed + len(fmt + side))}}

    def score(fmt: str, side: str, seed: int) -> float:
        return float(change(fmt, side, seed)["arrays"]["right"].mean())

    found = judged(make_suite(score, change=change, margin=0.005))
    error = effect(found, "e5m2")["sampling_std"]
    assert 0.002 < error < 0.02
    assert "is below the error of the test set itself" in " ".join(found.verdict)
    found = judged(make_suite(score, change=change, margin=0.2))
    assert "the error of the test set" not in " ".join(found.verdict)


def test_an_archive_keeps_what_the_declared_question_and_the_one_asked_now_need() -> None:
    def contrast(metric: str) -> Contrast:
        return Contrast(axis="o", baseline="a", treatment="b", metric=f"final/test/{metric}")

    cells = tuple(
        PlannedCell(id=stage, condition="c", seed=0, stage=stage) for stage in ("final", "tune")
    )
    declared = Declaration(at=0.0, contrast=contrast("old"))
    plan = StoredPlan(suite="s", contrast=contrast("new"), cells=cells, declared=declared)
    keeps = draws_of(StoredSuite(Path("s"), plan, ()))
    known = {f"final/test/{name}": np.ones(3) for name in ("old", "new", "other")}

    def kept(name: str) -> list[str]:
        spec = SimpleNamespace(id=name, task=SimpleNamespace(name="none"))
        return sorted(keeps(cast(StoredRun, SimpleNamespace(spec=spec, resampled=known))))

    both = ["final/test/new", "final/test/old"]
    assert [kept(name) for name in ("final", "dropped since", "tune")] == [both, both, []]
