"""The learning-rate section: what it says of the grid, of close calls, and of gains that may be the rate's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from altgrad_core.analysis.words import MINUS, NONE
from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.section import Question
from altgrad_plugins.sections.equal_rates import equal_rates
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


BEFORE = {0.001: (0.50, 0.52), 0.002: (0.60, 0.62), 0.004: (0.55, 0.57)}
AFTER = {0.001: (0.53, 0.53), 0.002: (0.61, 0.65), 0.004: (0.70, 0.74)}
FLAT = dict.fromkeys(BEFORE, (0.6, 0.6))
LOSS = Metric("loss", "loss", "lower", primary=True)


def found_with(tuned: dict[str, tuple[Any, float]], metric: Metric, broken: float = 0.0) -> Any:
    """Findings about the groups ``e5m2`` and ``bf16``; condition -> what was tuned, and the rate that was chosen."""
    rows = [
        {
            **{"condition": name, "metric": f"final/validation/{metric.name}", "rate": rate},
            **{"seed": 100 + number, "score": score, "chosen": rate == chosen},
            "diverged": int(rate == broken and name == "e5m2_b"),
        }
        for name, (tried, chosen) in tuned.items()
        for rate, scores in tried.items()
        for number, score in enumerate(scores)
    ]
    effects = [
        {
            **{"group": group, "format": group, "setting": "", "role": role, "placebo": ""},
            **{"baseline_condition": f"{group}_a", "treatment_condition": f"{group}_b"},
            "refused": "",
        }
        for group, role in (("bf16", "reference"), ("e5m2", "tested"))
    ]
    question = Question("optimizer.type", "a", "b", f"final/test/{metric.name}", metric)
    return SimpleNamespace(
        tuning=pd.DataFrame(rows),
        effects=pd.DataFrame(effects),
        metrics=(metric,),
        question=question,
    )


def cells(blocks: Any) -> list[list[str]]:
    return [[cell.text for cell in row] for row in blocks[1].rows]


BOTH: dict[str, tuple[Any, float]] = {
    **{"bf16_a": (FLAT, 0.001), "bf16_b": (FLAT, 0.001)},
    **{"e5m2_a": (BEFORE, 0.002), "e5m2_b": (AFTER, 0.004)},
}


def test_gains_at_equal_rates_stand_beside_those_of_the_tuned_ones() -> None:
    score = Metric("f1", "F1", "higher", primary=True)
    blocks = equal_rates(found_with(BOTH, score))
    assert "different rates in 1 of 2 formats (e5m2)" in blocks[0].text  # type: ignore[union-attr]
    assert cells(blocks) == [
        ["bf16", "0.001 / 0.001", *["0.0000 ± 0.0000"] * 4],
        [
            *("e5m2", "0.002 / 0.004", "+0.1100 ± 0.0141"),
            *("+0.0200 ± 0.0141", "+0.0200 ± 0.0141", "+0.1600 ± 0.0141"),
        ],
    ]
    same = {**BOTH, "e5m2_b": (AFTER, 0.002)}
    (paragraph, _) = equal_rates(found_with(same, score))
    assert paragraph.text == "Both sides were tuned to the same rate in all 2 formats."  # type: ignore[union-attr]


def test_a_loss_that_rises_is_no_gain_and_a_rate_at_which_a_run_diverged_tells_none() -> None:
    (_, row) = cells(equal_rates(found_with(BOTH, LOSS, broken=0.001)))
    assert row[2:] == [
        MINUS + "0.1100 ± 0.0141",
        NONE,
        MINUS + "0.0200 ± 0.0141",
        MINUS + "0.1600 ± 0.0141",
    ]


def test_no_score_and_a_refused_group_tell_no_gain() -> None:
    nan = {**BOTH, "e5m2_b": ({**AFTER, 0.001: (float("nan"), 0.53)}, 0.004)}
    found = found_with(nan, LOSS)
    assert cells(equal_rates(found))[1][3] == NONE
    found.effects["refused"] = ["", "its runs had another rate"]
    assert [row[0] for row in cells(equal_rates(found))] == ["bf16"]


def test_a_group_of_which_one_side_was_not_tuned_has_no_row() -> None:
    few = {name: BOTH[name] for name in ("bf16_a", "bf16_b", "e5m2_a")}
    assert [row[0] for row in cells(equal_rates(found_with(few, LOSS)))] == ["bf16"]
    assert equal_rates(found_with({"bf16_a": BOTH["bf16_a"]}, LOSS)) == []
