"""The verdict of suites with a planted effect, from runs to words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from planted import (
    LADDER,
    PERPLEXITY,
    Score,
    effect,
    judged,
    make_suite,
    noisy,
)

from altgrad_core.interfaces.section import Findings
from altgrad_core.results.kept import StoredTuning
from altgrad_core.results.stored import StoredSuite


def words(found: Findings) -> str:
    return " ".join(found.verdict)


def verdicts(found: Findings) -> dict[str, str]:
    return dict(zip(found.effects["group"], found.effects["verdict"], strict=True))


def diverging(score: Score, seeds: Iterable[int]) -> Score:
    """The same scores, but the treatment of e5m2 diverges with these seeds."""
    ends = {("e5m2", "new", seed) for seed in seeds}
    return lambda fmt, side, seed: None if (fmt, side, seed) in ends else score(fmt, side, seed)


class TestBenefit:
    def test_one_true_benefit_is_named_with_its_evidence(self) -> None:
        found = judged(make_suite(noisy({"e5m2": 0.05}, 0.004), margin=0.01))
        row = effect(found, "e5m2")
        assert (row["verdict"], row["needs_grid"], row["best"]) == ("benefit", "yes", True)
        assert row["best_p"] < 0.05
        assert effect(found, "bf16")["role"] == "reference"
        text = words(found)
        assert text.startswith(
            "e5m2 gains most from new against old, and because of its grid: +0.0"
        )
        assert "more" in text
        assert "p " in text
        assert "5 seeds, all better" in text
        assert "The gain is beyond the margin of ±0.0100." in text
        assert "compatible with a rate of divergence of up to 45.1 %" in text
        assert "Learning rates were not tuned" in text
        assert found.exploratory == ()

    def test_no_benefit_is_called_by_its_largest_gain(self) -> None:
        found = judged(make_suite(noisy({}, 0.01)))
        assert set(verdicts(found).values()) == {"undecided", ""}
        text = words(found)
        assert "The data cannot tell whether any format benefits" in text
        assert "The largest gain seen, not shown, is +0.0" in text
        assert "gains most" not in text

    def test_no_benefit_beyond_the_margin_is_a_finding(self) -> None:
        found = judged(make_suite(noisy({}, 0.002), margin=0.02))
        assert verdicts(found) == {"bf16": "", "e5m2": "equivalent", "e3m4": "equivalent"}
        assert words(found).startswith("No format benefits beyond the margin of ±0.0200")

    def test_what_bf16_gains_as_well_does_not_need_the_grid(self) -> None:
        gains = dict.fromkeys(LADDER, 0.05)
        found = judged(make_suite(noisy(gains, 0.004)))
        assert verdicts(found) == {"bf16": "", "e5m2": "benefit", "e3m4": "benefit"}
        assert set(found.effects["needs_grid"]) == {"", "undecided"}
        text = words(found)
        assert "That any of it needs the grid is not shown" in text
        assert "gains most from" not in text
        assert "because of its grid" not in text

    def test_with_a_margin_gaining_alike_is_a_finding(self) -> None:
        gains = dict.fromkeys(LADDER, 0.05)
        found = judged(make_suite(noisy(gains, 0.002), margin=0.02))
        assert set(found.effects["needs_grid"]) == {"", "no"}
        assert "None of it needs the grid" in words(found)

    def test_a_tight_small_gain_is_not_the_most_beside_a_large_noisy_one(self) -> None:
        noise = {"bf16": 0.0003, "e5m2": 0.0003, "e3m4": 0.09}
        score = noisy({"e5m2": 0.006, "e3m4": 0.1}, noise)
        found = judged(make_suite(score))
        assert effect(found, "e5m2")["verdict"] == "benefit"
        assert effect(found, "e3m4")["verdict"] == "undecided"
        assert effect(found, "e3m4")["best"]
        assert not effect(found, "e5m2")["best"]
        text = words(found)
        assert "Which format gains most is not shown: the largest gain seen is" in text
        assert "in e3m4" in text
        assert "gains most from" not in text

    def test_without_a_reference_nothing_is_said_to_need_the_grid(self) -> None:
        found = judged(make_suite(noisy({"e5m2": 0.05}, 0.004), formats=("e5m2", "e3m4")))
        assert set(found.effects["needs_grid"]) == {"no reference"}
        assert "it cannot tell what needs the grid" in words(found)

    def test_floats_alone_are_tested_like_anything_else(self) -> None:
        found = judged(make_suite(noisy({"bf16": 0.05}, 0.004), formats=("bf16",)))
        assert effect(found, "bf16")["role"] == "tested"
        assert effect(found, "bf16")["verdict"] == "benefit"

    def test_the_margin_that_is_not_reached_is_named(self) -> None:
        found = judged(make_suite(noisy({"e5m2": 0.012}, 0.004), margin=0.01))
        assert "The gain is not shown to be beyond the margin" in words(found)


class TestDirection:
    def test_a_worse_perplexity_is_harm(self) -> None:
        score = noisy({"e5m2": 3.0}, 0.3, base=30.0)
        found = judged(make_suite(score, metric=PERPLEXITY))
        row = effect(found, "e5m2")
        assert row["verdict"] == "harm"
        assert row["gain"] < -2
        assert row["delta"] > 2
        assert "It does harm in e5m2" in words(found)
        assert "lower is better" in words(found)

    def test_a_better_perplexity_is_a_benefit(self) -> None:
        score = noisy({"e5m2": -3.0}, 0.3, base=30.0)
        found = judged(make_suite(score, metric=PERPLEXITY))
        assert effect(found, "e5m2")["verdict"] == "benefit"


class TestDivergence:
    def test_it_is_the_worst_score_where_there_is_one(self) -> None:
        found = judged(make_suite(diverging(noisy({"e5m2": 0.05}, 0.004), range(2))))
        row = effect(found, "e5m2")
        assert (row["n"], row["diverged_treatment"], row["dropped"]) == (5, 2, 0)
        assert row["verdict"] != "benefit"
        assert row["gain"] < 0
        assert "diverged in 2 and the baseline in 0 of 5 seeds" in words(found)

    @pytest.mark.parametrize("seeds", [10, 12])
    def test_half_of_the_treatments_diverging_on_a_loss_is_no_benefit(self, seeds: int) -> None:
        score = diverging(noisy({"e5m2": -3.0}, 0.1, base=30.0), range(0, seeds, 2))
        found = judged(make_suite(score, metric=PERPLEXITY, seeds=range(seeds)))
        row = effect(found, "e5m2")
        assert (row["n"], row["dropped"]) == (seeds // 2, seeds // 2)
        assert row["p_holm"] < 0.01
        assert row["gain"] > 0
        assert row["verdict"] == "undecided"
        text = words(found)
        assert f"diverged in {seeds // 2} and the baseline in 0 of {seeds} seeds" in text
        assert f"the gain is without {seeds // 2} pairs" in text
        assert "None of its runs diverged" not in text
        assert "shown to benefit" not in text

    def test_a_score_that_is_no_number_counts_as_a_divergence(self) -> None:
        plain = noisy({"e5m2": -3.0}, 0.1, base=30.0)

        def score(fmt: str, side: str, seed: int) -> float:
            bad = (fmt, side) == ("e5m2", "new") and seed < 5
            return float("inf") if bad else plain(fmt, side, seed)

        found = judged(make_suite(score, metric=PERPLEXITY, seeds=range(10)))
        row = effect(found, "e5m2")
        assert (row["diverged_treatment"], row["dropped"], row["verdict"]) == (5, 5, "undecided")

    def test_where_no_pair_is_left_nothing_is_tested(self) -> None:
        score = diverging(noisy({}, 0.1, base=30.0), range(5))
        found = judged(make_suite(score, metric=PERPLEXITY))
        row = effect(found, "e5m2")
        assert (row["n"], row["dropped"], row["verdict"]) == (0, 5, "nothing to test")
        assert "a run of every pair diverged" in row["why"]


class TestAudit:
    def test_a_zipped_setting_is_named_and_no_benefit_shown(self) -> None:
        def change(fmt: str, side: str, seed: int) -> Mapping[str, Any]:
            return {"training": {"batch_size": 8 if side == "old" else 16}}

        found = judged(make_suite(noisy({"e5m2": 0.05}, 0.004), change=change))
        assert effect(found, "e5m2")["confounds"] == "training.batch_size: 8 against 16"
        text = words(found)
        assert text.startswith("The two sides differ in more than optimizer.type")
        assert "training.batch_size: 8 against 16" in text
        assert "no benefit of it is shown" in text
        assert "gains most" not in text

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"device_name": "B"}, "device A against B"),
            ({"threads": 4}, "1 against 4 threads"),
            ({"packages": {"torch": "2.11"}}, "torch 2.10 against 2.11"),
        ],
    )
    def test_another_machine_or_version_is_named(self, changed: dict[str, Any], said: str) -> None:
        found = judged(
            make_suite(
                noisy({"e5m2": 0.05}, 0.004),
                change=lambda f, s, n: {"environment": changed} if (s, n) == ("new", 0) else {},
            )
        )
        assert effect(found, "e5m2")["confounds"] == f"{said} (1 of 5 seeds)"
        assert said in words(found)

    def test_a_learning_rate_set_by_hand_is_named(self) -> None:
        found = judged(
            make_suite(
                noisy({"e5m2": 0.05}, 0.004),
                change=lambda f, s, n: {"training": {"learning_rate": 0.003}} if s == "new" else {},
            )
        )
        assert "training.learning_rate: 0.001 against 0.003" in words(found)

    def test_other_data_are_refused(self) -> None:
        found = judged(
            make_suite(
                noisy({"e5m2": 0.05}, 0.004),
                change=lambda f, s, n: {"data": "11"} if (f, s) == ("e5m2", "new") else {},
            )
        )
        row = effect(found, "e5m2")
        assert row["verdict"] == "refused"
        assert "different data" in row["refused"]
        assert row["p"] != row["p"], "nothing is tested"
        assert "The comparison in e5m2 is refused: its two sides had different data." in words(
            found
        )

    def test_what_only_records_more_is_no_difference(self) -> None:
        found = judged(
            make_suite(
                noisy({"e5m2": 0.05}, 0.004),
                change=lambda f, s, n: {"training": {"log_interval": 1}} if s == "new" else {},
            )
        )
        assert set(found.effects["confounds"]) == {""}


def tuning(rate: float = 0.001, censored: str = "", **other: float) -> StoredTuning:
    names = [f"{fmt}_{side}" for fmt in LADDER for side in ("old", "new")]
    return StoredTuning.model_validate(
        {
            "metric": "final/validation/accuracy",
            "rates": (0.0005, 0.001, 0.002),
            "seeds": (1000,),
            "conditions": {
                name: {
                    "scores": {"0.0005": (0.4,), "0.001": (0.5,), "0.002": (0.45,)},
                    "chosen": other.get(name, rate),
                    "censored": name == censored,
                }
                for name in names
            },
        }
    )


class TestLearningRates:
    def test_tuned_rates_may_differ(self) -> None:
        found = judged(
            make_suite(
                noisy({"e5m2": 0.05}, 0.004),
                change=lambda f, s, n: (
                    {"training": {"learning_rate": 0.002}} if (f, s) == ("e5m2", "new") else {}
                ),
                tuning=tuning(e5m2_new=0.002),
            )
        )
        assert effect(found, "e5m2")["confounds"] == "" == effect(found, "e5m2")["refused"]
        assert "not tuned" not in words(found)

    def test_an_old_tuning_file_beside_new_runs_is_found_out(self) -> None:
        found = judged(make_suite(noisy({"e5m2": 0.05}, 0.004), tuning=tuning(e5m2_new=0.002)))
        assert effect(found, "e5m2")["verdict"] == "refused"
        assert "tuning.json chose the learning rate 0.002 for e5m2_new" in words(found)
        assert effect(found, "e3m4")["verdict"] == "undecided"

    def test_a_best_rate_on_the_edge_is_censored_and_counts_in_the_family(self) -> None:
        found = judged(make_suite(noisy({"e5m2": 0.05}, 0.004), tuning=tuning(censored="e3m4_old")))
        assert effect(found, "e3m4")["verdict"] == "censored"
        row = effect(found, "e5m2")
        assert row["family"] == 2
        assert row["p_holm"] == pytest.approx(2 * row["p"])
        assert row["best_p"] != row["best_p"], "best of what cannot be judged is not tested"
        assert "gains most from" not in words(found)


class TestFewSeeds:
    @pytest.mark.parametrize("n", [1, 2, 3, 4])
    def test_below_five_nothing_is_shown(self, n: int) -> None:
        found = judged(make_suite(noisy({"e5m2": 0.2}, 0.001), seeds=range(n)))
        assert set(verdicts(found).values()) == {"", "too few seeds"}
        assert found.effects[["p", "p_holm", "best_p", "excess_p"]].isna().all(axis=None)
        assert "at least 5 are needed" in words(found)
        assert "new against old in Accuracy: the largest gain seen is +0." in words(found)

    def test_differences_that_are_all_but_equal_give_no_p(self) -> None:
        def score(fmt: str, side: str, seed: int) -> float:
            return 0.5 + 0.03 * seed + (0.02 + 1e-7 * (seed % 3) if side == "new" else 0.0)

        found = judged(make_suite(score))
        assert set(verdicts(found).values()) == {"", "nothing to test"}
        assert found.effects["p"].isna().all()
        assert "all seeds have the same difference" in words(found)


def _only(suite: StoredSuite, fmt: str) -> StoredSuite:
    """The suite as after a plan of that format alone, in the same folder."""
    assert suite.plan is not None
    kept = tuple(c for c in suite.plan.cells if c.axes["quantization.format"] == fmt)
    plan = suite.plan.model_copy(update={"cells": kept})
    return StoredSuite(suite.path, plan, suite.runs)


class TestDeclaration:
    def test_seeds_added_after_a_look_are_a_second_answer(self) -> None:
        found = judged(
            make_suite(
                noisy({"e5m2": 0.05}, 0.004), seeds=range(8), declared={"seeds": (0, 1, 2, 3, 4)}
            )
        )
        assert found.exploratory == ()
        assert effect(found, "e5m2")["planned"] == 5
        (other,) = found.beside
        assert effect(other, "e5m2")["planned"] == 8
        assert "seeds 5, 6 and 7 added after the declaration" in words(found)
        assert words(found).index("gains most") < words(found).index("Exploratory")

    def test_another_margin_contrast_or_family_is_exploratory(self) -> None:
        suite = make_suite(noisy({"e5m2": 0.05}, 0.004), margin=0.01, declared={"margin": 0.03})
        found = judged(suite)
        assert found.question is not None
        assert found.question.margin == 0.03
        assert "declared was the margin ±0.0300" in words(found)
        names = [f"{f}_{s}" for f in ("bf16", "e5m2") for s in ("old", "new")]
        found = judged(make_suite(noisy({}, 0.004), declared={"conditions": names}))
        assert found.effects["group"].tolist() == ["bf16", "e5m2"]
        assert found.beside[0].effects["group"].tolist() == list(LADDER)
        assert "e3m4_old and e3m4_new added after the declaration" in words(found)

    def test_declared_seeds_that_the_plan_dropped_still_count(self) -> None:
        suite = make_suite(noisy({"e5m2": 0.05}, 0.004), seeds=range(6))
        assert suite.plan is not None
        kept = tuple(cell for cell in suite.plan.cells if cell.seed < 3)
        fewer = suite.plan.model_copy(update={"cells": kept})
        found = judged(type(suite)(suite.path, fewer, suite.runs))
        assert effect(found, "e5m2")["n"] == 6
        assert found.complete
        assert effect(found.beside[0], "e5m2")["n"] == 3

    def test_declared_conditions_that_the_plan_dropped_still_count(self) -> None:
        suite = make_suite(noisy({"e5m2": 0.05}, 0.004))
        found = judged(_only(suite, "bf16"))
        assert set(found.effects["group"]) == set(LADDER)
        assert found.beside[0].effects["group"].tolist() == ["bf16"]

    @pytest.mark.parametrize("other", [{"data": "01"}, {"training": {"max_steps": 7}}])
    def test_what_was_run_on_other_data_or_for_other_steps_is_left_out(
        self, other: dict[str, Any]
    ) -> None:
        suite = make_suite(
            noisy({"e5m2": 0.05}, 0.004), change=lambda f, s, n: {} if f == "bf16" else other
        )
        found = judged(_only(suite, "bf16"))
        assert set(found.conditions["format"]) == {"bf16"}
        assert found.effects["group"].tolist() == ["bf16"]

    def test_without_a_declaration_the_answer_is_exploratory(self) -> None:
        found = judged(make_suite(noisy({"e5m2": 0.05}, 0.004), declared=None))
        assert found.exploratory
        assert words(found).startswith("Exploratory, not confirmatory")
        assert found.beside == ()

    def test_an_unfinished_suite_has_estimates_and_no_verdict(self) -> None:
        score = noisy({"e5m2": 0.05}, 0.004)
        found = judged(make_suite(score, missing=[("e3m4", "new", 4)]))
        assert not found.complete
        assert set(verdicts(found).values()) == {"", "unfinished"}
        columns = [c for c in found.effects if c == "best_p" or "p_" in c or c.endswith("_p")]
        assert found.effects[[*columns, "p"]].isna().all(axis=None)
        assert words(found).startswith("No verdict yet: 29 of 30 planned runs have a result")
        assert "new against old in Accuracy, so far: the largest gain seen is +0.0" in words(found)


@pytest.mark.parametrize(
    ("seeds", "missing"),
    [(0, ()), *((n, missing) for n in (1, 4, 5) for missing in ((), [("e3m4", "new", 0)]))],
)
@pytest.mark.parametrize("gain", [0.05, 0.0, -0.05])
def test_every_sentence_stands_by_itself(
    seeds: int, missing: list[tuple[str, str, int]], gain: float
) -> None:
    score = noisy(dict.fromkeys(LADDER, gain), 0.004)
    found = judged(make_suite(score, seeds=range(seeds), missing=missing))
    assert all(sentence.endswith(".") for sentence in found.verdict), found.verdict


class TestControls:
    def test_a_broken_twin_ends_the_verdict(self) -> None:
        score = noisy({}, 0.004)
        found = judged(
            make_suite(
                lambda f, s, n: score("e1m6", s, n) + (f == "e0m7") * 0.01,
                formats=("bf16", "e1m6", "e0m7"),
            )
        )
        assert set(found.twins["status"]) == {"differ"}
        assert words(found).startswith("The instrument is not trustworthy: e1m6 and e0m7 are")

    def test_equal_twins_are_identical_controls_outside_the_family(self) -> None:
        score = noisy({"e5m2": 0.05}, 0.004)

        def planted(fmt: str, side: str, seed: int) -> float | None:
            return score("e1m6", "old", seed) if fmt in ("e1m6", "e0m7") else score(fmt, side, seed)

        found = judged(make_suite(planted, formats=("bf16", "e5m2", "e1m6", "e0m7")))
        assert set(found.twins["status"]) == {"equal"}
        assert effect(found, "e1m6")["role"] == "identical" == effect(found, "e0m7")["role"]
        assert effect(found, "e5m2")["family"] == 1
        assert "same by construction" in words(found)

    def test_a_diverged_twin_decides_nothing_and_erases_nothing(self) -> None:
        score = noisy({"e5m2": 0.05}, 0.004)

        def planted(fmt: str, side: str, seed: int) -> float | None:
            if (fmt, seed) == ("e0m7", 2):
                return None
            return score("e1m6", "old", seed) if fmt in ("e1m6", "e0m7") else score(fmt, side, seed)

        found = judged(make_suite(planted, formats=("bf16", "e5m2", "e1m6", "e0m7")))
        assert found.twins["status"].value_counts().to_dict() == {"equal": 8, "undecided": 2}
        assert effect(found, "e5m2")["verdict"] == "benefit"
        assert words(found).startswith("e5m2")

    def test_a_twin_that_ran_elsewhere_decides_nothing(self) -> None:
        score = noisy({}, 0.004)
        found = judged(
            make_suite(
                lambda f, s, n: score("e1m6", s, n) + (f == "e0m7") * 1e-6,
                formats=("bf16", "e1m6", "e0m7"),
                change=lambda f, s, n: {"environment": {"device_name": "B"}} if f == "e0m7" else {},
            )
        )
        assert set(found.twins["status"]) == {"undecided"}
        assert set(found.twins["why"]) == {"they ran on different devices"}

    def test_placebos_stand_beside_the_group_that_they_are_of(self) -> None:
        sides = (
            {"type": "old"},
            {"type": "new", "stiffness": "grid"},
            {"type": "new", "stiffness": "permuted"},
        )
        plain = noisy({"e5m2": 0.05}, 0.004)
        suite = make_suite(plain, sides=sides)
        found = judged(suite)
        row = effect(found, "e5m2, stiffness permuted")
        assert (row["role"], row["placebo"], row["verdict"]) == ("placebo", "permuted", "")
        assert row["reference_group"] == "e5m2, stiffness grid"
        assert row["excess"] == pytest.approx(
            row["gain"] - effect(found, "e5m2, stiffness grid")["gain"]
        )
        assert "permuted placebo" in words(found)

    def test_a_borrowed_stiffness_is_a_placebo_of_the_format_that_lends_it(self) -> None:
        sides = (
            {"type": "old"},
            {"type": "new", "stiffness": "grid"},
            {"type": "new", "stiffness": "borrowed", "borrowed_format": "e5m2"},
        )
        suite = make_suite(noisy({}, 0.004), sides=sides)
        found = judged(suite)
        (row,) = found.effects[
            (found.effects["placebo"] == "borrowed") & (found.effects["format"] == "bf16")
        ].to_dict("records")
        assert row["reference_group"] == "e5m2, stiffness grid"
