"""What a metric declares, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from altgrad_core.interfaces.metric import Metric, fault

ACCURACY = Metric("accuracy", "Accuracy", "higher", 0.0, primary=True)
PERPLEXITY = Metric("perplexity", "Perplexity", "lower")


def test_better_follows_the_direction_and_nan_is_never_better() -> None:
    assert (ACCURACY.sign, PERPLEXITY.sign) == (1, -1)
    assert ACCURACY.better(0.6, 0.5)
    assert not ACCURACY.better(0.5, 0.5)
    assert PERPLEXITY.better(20.0, 30.0)
    assert PERPLEXITY.better(20.0, math.inf)
    for metric in (ACCURACY, PERPLEXITY):
        assert metric.better(0.1, math.nan)
        assert not metric.better(math.nan, 0.1)
        assert not metric.better(math.nan, math.nan)


def test_values_beyond_the_worst_one_are_impossible() -> None:
    assert ACCURACY.possible(0.0)
    assert not ACCURACY.possible(-1e-6)
    assert not Metric("hamming_loss", "Hamming loss", "lower", 1.0).possible(1.1)
    assert PERPLEXITY.possible(1e30)
    assert not PERPLEXITY.possible(math.nan)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "final/test/x"}, "letters, digits"),
        ({"name": ""}, "letters, digits"),
        ({"name": 3}, "letters, digits"),
        ({"label": " "}, "needs a label"),
        ({"direction": "up"}, "'higher' or 'lower', not 'up'"),
        ({"worst": math.nan}, "None where there is no worst value"),
        ({"worst": -math.inf}, "None where there is no worst value"),
    ],
)
def test_what_no_metric_can_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Metric(**{"name": "x", "label": "X", "direction": "higher", **changes})


def test_a_task_has_different_metrics_of_which_one_is_primary() -> None:
    assert fault([ACCURACY, PERPLEXITY]) == ""
    assert "declares no metrics" in fault([])
    assert "'accuracy' twice" in fault([ACCURACY, ACCURACY])
    assert "there is none of perplexity" in fault([PERPLEXITY])
    second = Metric("f1", "F1", "higher", primary=True)
    assert "there is accuracy, f1 of" in fault([ACCURACY, second])
