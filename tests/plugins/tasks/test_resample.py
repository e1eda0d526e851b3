"""Weighted scores, with scikit-learn as the witness."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    hamming_loss,
    precision_score,
    recall_score,
)

from altgrad_core.registry.catalog import catalog
from altgrad_plugins.tasks.declared import METRICS
from altgrad_plugins.tasks.metrics import scores_at
from altgrad_plugins.tasks.resample import weighted_scores

WITNESSES = {"f1": f1_score, "precision": precision_score, "recall": recall_score}


@pytest.fixture(scope="module")
def predictions() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    probabilities = rng.uniform(size=(80, 6)).astype(np.float16)
    targets = (rng.uniform(size=(80, 6)) < 0.3).astype(np.uint8)
    targets[:, 5] = 0  # a label that never occurs
    return {
        "probabilities": probabilities,
        "targets": targets,
        "threshold": np.full(80, 0.71, dtype=np.float32),
    }


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(4).multinomial(80, np.full(80, 1 / 80), size=7).astype(float)


@pytest.mark.parametrize(("suffix", "threshold"), [("", 0.5), ("_tuned", np.float32(0.71))])
def test_they_are_scikit_learns(
    predictions: dict[str, np.ndarray], weights: np.ndarray, suffix: str, threshold: float
) -> None:
    found = weighted_scores(predictions, weights)
    decided, truth = predictions["probabilities"] >= threshold, predictions["targets"]
    for draw, weight in enumerate(weights):
        for name, witness in WITNESSES.items():
            for average in ("micro", "macro"):
                options = {"average": average, "zero_division": 0, "sample_weight": weight}
                expected = witness(truth, decided, **options)
                score = found[f"{name}_{average}{suffix}"][draw]
                assert score == pytest.approx(expected, abs=1e-12), (name, average)
        for name, witness in (("subset_accuracy", accuracy_score), ("hamming_loss", hamming_loss)):
            expected = witness(truth, decided, sample_weight=weight)
            assert found[f"{name}{suffix}"][draw] == pytest.approx(expected, abs=1e-12), name


def test_equal_weights_give_the_scores_of_the_evaluation(
    predictions: dict[str, np.ndarray],
) -> None:
    found = weighted_scores(predictions, np.ones((1, 80)))
    given = predictions["probabilities"].astype(np.float32), predictions["targets"]
    for name, expected in scores_at(*given, 0.5).items():
        assert found[name][0] == pytest.approx(expected, abs=1e-12), name


def test_only_the_score_that_is_asked_for_is_computed(
    predictions: dict[str, np.ndarray], weights: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = weighted_scores(predictions, weights)
    monkeypatch.setattr(sparse, "csr_array", None)  # what counts label by label
    assert found["f1_micro"].shape == (7,)
    with pytest.raises(TypeError):
        found["f1_macro"]


def test_what_is_no_number_has_no_scores(predictions: dict[str, np.ndarray]) -> None:
    broken = predictions["probabilities"].copy()
    broken[3, 2] = np.nan
    assert weighted_scores({**predictions, "probabilities": broken}, np.ones((2, 80))) == {}


def test_older_predictions_have_no_tuned_scores(predictions: dict[str, np.ndarray]) -> None:
    older = {name: value for name, value in predictions.items() if name != "threshold"}
    assert not any(name.endswith("_tuned") for name in weighted_scores(older, np.ones((2, 80))))


def test_the_built_in_tasks_offer_it_for_metrics_that_they_declare() -> None:
    declared = {metric.name for metric in METRICS}
    for task in ("eurlex", "license_rules"):
        assert catalog().resample(task) is weighted_scores
    given = {"probabilities": np.ones((2, 1)), "targets": np.ones((2, 1)), "threshold": np.ones(2)}
    assert set(weighted_scores(given, np.ones((1, 2)))) <= declared
