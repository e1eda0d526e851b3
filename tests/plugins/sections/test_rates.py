"""The learning-rate section: a grid that is too coarse to tell conditions apart is called that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from altgrad_plugins.sections.rates import _answer, _close_calls


@pytest.mark.parametrize(
    ("rates", "said"),
    [((5e-4, 1e-3, 2e-3), None), ((1e-3, 3e-3, 6e-3), "a factor 3 apart")],
)
def test_a_coarse_grid_is_said(rates: tuple[float, ...], said: str | None) -> None:
    rows = [
        {
            **{"condition": "bf16_adamw", "rate": rate, "seed": 100},
            **{"censored": False, "chosen": rate == rates[1], "score": 0.5},
        }
        for rate in rates
    ]
    conditions = pd.DataFrame({"condition": ["bf16_adamw"]})
    found: Any = SimpleNamespace(tuning=pd.DataFrame(rows), conditions=conditions)
    text = _answer(found)
    assert ("apart" in text) == (said is not None)
    assert said is None or said in text


@pytest.mark.parametrize(
    ("chosen", "other", "said"),
    [
        ((0.60, 0.62, 0.61), (0.63, 0.57, 0.62), "bf16_adamw (0.002 before 0.004)"),
        ((0.60, 0.62, 0.61), (0.59, 0.61, 0.60), None),  # less by as much for each seed
        ((1.3, 1.5), (1.4, 1.41), "bf16_adamw (0.002 before 0.004)"),  # whichever way is better
        ((0.6, 0.6), (float("nan"), 0.6), None),  # a rate that has no score is no rival
        ((0.6,), (0.6,), None),  # from one seed nothing can be told
    ],
)
def test_a_rate_that_hardly_leads_is_said(
    chosen: tuple[float, ...], other: tuple[float, ...], said: str | None
) -> None:
    rows = [
        {
            **{"condition": "bf16_adamw", "rate": rate, "seed": seed, "score": score},
            **{"censored": False, "chosen": rate == 0.002},
        }
        for rate, scores in ((0.001, [9.0] * len(chosen)), (0.002, chosen), (0.004, other))
        for seed, score in enumerate(scores)
    ]
    text = _close_calls(pd.DataFrame(rows))
    assert (said in text) if said else text == ""
