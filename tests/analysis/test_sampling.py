"""The error of the test set: gains under other draws of its examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted import ACCURACY, PERPLEXITY, effect, judged, make_suite

from altgrad_core.analysis import find
from altgrad_core.analysis.sampling import DRAWS, sampling_errors, weights

EXAMPLES = 400


def accuracy(predictions: Mapping[str, Any], drawn: np.ndarray) -> dict[str, np.ndarray]:
    return {"accuracy": drawn @ predictions["right"] / drawn.sum(axis=1)}


def pairs(seeds: int = 1, diverged: str = "") -> pd.DataFrame:
    rows = [("g", f"a{seed}", f"b{seed}", diverged) for seed in range(seeds)]
    return pd.DataFrame(rows, columns=["group", "baseline_id", "treatment_id", "diverged"])


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
    found = sampling_errors(pairs(), ACCURACY, accuracy, stored.__getitem__)["g"]
    difference = stored["b0"]["right"] - stored["a0"]["right"]
    assert found == pytest.approx(difference.std() / math.sqrt(EXAMPLES), rel=0.15)


def test_examples_that_both_sides_get_right_make_no_error() -> None:
    same = {"right": right(0.6, 1)}
    found = sampling_errors(pairs(), ACCURACY, accuracy, lambda _: same)
    assert found == {"g": 0.0}


def test_the_same_examples_in_every_seed_do_not_average_out() -> None:
    one, two = right(0.6, 1), right(0.7, 2)

    def stored(run: str) -> dict[str, np.ndarray]:
        return {"right": one if run.startswith("a") else two}

    few = sampling_errors(pairs(1), ACCURACY, accuracy, stored)["g"]
    many = sampling_errors(pairs(9), ACCURACY, accuracy, stored)["g"]
    assert many == pytest.approx(few)


@pytest.mark.parametrize("table", [pairs(diverged="treatment"), pairs()])
def test_without_predictions_it_is_not_known(table: pd.DataFrame) -> None:
    found = sampling_errors(table, ACCURACY, accuracy, lambda _: {})
    assert all(math.isnan(error) for error in found.values())


def test_a_metric_that_the_task_cannot_weigh_is_not_known() -> None:
    stored = {"right": right(0.6, 1)}
    found = sampling_errors(pairs(), PERPLEXITY, accuracy, lambda _: stored)
    assert math.isnan(found["g"])


def test_a_margin_below_the_error_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugins:
        @staticmethod
        def resample(name: str) -> Any:
            return {"toy_task": accuracy}[name]

    monkeypatch.setattr(find, "catalog", Plugins)
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
