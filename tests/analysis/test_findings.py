"""The tables of a suite, and what holds of them whatever the scores are."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import ACCURACY, LADDER, PERPLEXITY, effect, judged, make_suite, noisy

from altgrad_core.analysis.effects import COLUMNS
from altgrad_core.results.stored import StoredSuite

TURNED = {"baseline": "new", "treatment": "old"}


def test_effects_have_the_columns_that_are_documented() -> None:
    found = judged(make_suite(noisy({}, 0.01)))
    assert tuple(found.effects) == COLUMNS
    import altgrad_core.analysis.effects as module

    assert all(f"``{name}``" in str(module.__doc__) for name in COLUMNS)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([ACCURACY, PERPLEXITY]))
def test_swapping_the_sides_negates_every_effect(seed: int, metric: Any) -> None:
    score = noisy({"e5m2": 0.03}, 0.02, seed=seed)
    one = judged(make_suite(score, metric=metric, margin=0.05))
    two = judged(make_suite(score, metric=metric, margin=0.05, contrast=TURNED))
    for group in LADDER:
        a, b = effect(one, group), effect(two, group)
        for name in ("gain", "delta", "excess"):
            assert b[name] == pytest.approx(-a[name], nan_ok=True)
        assert (b["low"], b["excess_low"]) == pytest.approx(
            (-a["high"], -a["excess_high"]), nan_ok=True
        )
        for name in ("p", "p_holm", "p_sign_flip", "p_tost_holm", "excess_p_holm", "gain_std"):
            assert b[name] == pytest.approx(a[name], nan_ok=True), name
        turned = {"benefit": "harm", "harm": "benefit"}
        assert b["verdict"] == turned.get(a["verdict"], a["verdict"])
        assert (a["role"] == "reference") == (group == "bf16") == (a["verdict"] == "")


@settings(max_examples=3, deadline=None)
@given(st.permutations(range(30)))
def test_the_order_of_runs_does_not_matter(order: list[int]) -> None:
    suite = make_suite(noisy({"e5m2": 0.03}, 0.02))
    found = judged(suite)
    other = judged(replace(suite, runs=tuple(suite.runs[i] for i in order)))
    assert found.verdict == other.verdict
    assert found.effects.equals(other.effects)


def test_a_reference_is_never_in_the_family() -> None:
    found = judged(make_suite(noisy({"bf16": 0.2}, 0.001)))
    row = effect(found, "bf16")
    assert (row["role"], row["verdict"], row["best"]) == ("reference", "", False)
    assert math.isnan(row["p"])
    assert effect(found, "e5m2")["family"] == 2
    assert "bf16 gains most" not in " ".join(found.verdict)


def test_one_grid_under_two_names_is_one_hypothesis() -> None:
    found = judged(make_suite(noisy({}, 0.01), formats=("bf16", "e3m4", "e4m3")))
    assert effect(found, "e3m4")["family"] == 2
    facts = found.formats.assign(grid=["", "a", "b", "b", "d", "d"])
    from altgrad_core.analysis.find import find

    same = find(make_suite(noisy({}, 0.01), formats=("bf16", "e3m4", "e4m3")), facts)
    assert effect(same, "e3m4")["family"] == 1
    assert effect(same, "e3m4")["p_holm"] == effect(same, "e4m3")["p_holm"]


def test_conditions_say_how_many_runs_trained() -> None:
    plain = noisy({}, 0.01)
    suite = make_suite(
        lambda f, s, n: None if (f, s, n) == ("e5m2", "new", 1) else plain(f, s, n),
        metric=PERPLEXITY,
    )
    table = judged(suite).conditions.set_index("condition")
    row = table.loc["e5m2_new"]
    assert (row["runs"], row["ok"], row["diverged"], row["side"]) == (5, 4, 1, "treatment")
    assert row["final/test/perplexity n"] == 4
    assert table.loc["e5m2_old", "side"] == "baseline"
    assert table["panel"].tolist() == [fmt for fmt in LADDER for _ in range(2)]


def test_layers_events_and_curves_name_their_runs() -> None:
    plain = noisy({}, 0.01)
    suite = make_suite(lambda f, s, n: None if (f, n) == ("e5m2", 1) else plain(f, s, n))
    found = judged(suite)
    assert set(found.layers["metric"]) == {"rank/stable_rank"}
    assert set(found.layers["layer"]) == {"encoder.q"}
    assert found.events["condition"].tolist() == ["e5m2_old", "e5m2_new"]
    assert found.curves["metric"].unique().tolist() == ["train/all/loss"]
    assert len(found.layers) == len(found.curves) == 30
    assert found.facts == {"toy_task": {"documents": 7}}


def test_a_suite_without_a_contrast_has_tables_and_says_so() -> None:
    suite = make_suite(noisy({}, 0.01))
    assert suite.plan is not None
    bare = suite.plan.model_copy(update={"contrast": None, "declared": None})
    found = judged(StoredSuite(suite.path, bare, suite.runs))
    assert found.question is None
    assert found.exploratory == ()
    assert found.verdict == (
        "The suite declares no contrast, so no format can be said to benefit.",
    )
    assert len(found.conditions) == 6
    assert found.effects.empty
    assert tuple(found.effects) == COLUMNS
