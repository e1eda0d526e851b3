"""The verdict on suites whose truth is known, because it was planted."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from altgrad_core import load_format
from altgrad_core.analysis.conclusion import verdict
from altgrad_core.analysis.findings import find
from altgrad_core.analysis.format_numbers import numbers_of
from altgrad_core.results.stored import read_suite

FORMATS = ("bf16", "e5m2", "e3m4", "e7m0")
UNTUNED = "any difference may come from the step size alone"


@pytest.fixture
def say(planted: ModuleType, fabricated: ModuleType, tmp_path: Path) -> Any:
    """Writes a suite and returns its verdict."""

    def said(score: Any, same_grid: Any = (), numbers: Any = None, **more: Any) -> str:
        given = {"formats": FORMATS, "margin": 0.005, **more}
        planted.write_suite(fabricated, tmp_path, score, **given)
        return verdict(find(read_suite(tmp_path), same_grid, numbers))

    return said


def test_a_benefit_in_one_format_is_named_with_its_evidence(say: Any, planted: ModuleType) -> None:
    score = planted.noisy({"e5m2": 0.05}, 0.01)
    text = say(score, tuned=True)
    gains = {
        fmt: np.array(
            [score(fmt, "manifold_adamw", s) - score(fmt, "adamw", s) for s in planted.SEEDS]
        )
        for fmt in FORMATS
    }
    low, high = stats.ttest_1samp(gains["e5m2"], 0).confidence_interval(0.95)
    p = multipletests([stats.ttest_1samp(d, 0).pvalue for d in gains.values()], method="holm")[1][1]
    assert text.startswith(
        "manifold_adamw is shown to benefit 1 of 4 formats over adamw in F1 micro, tuned. "
        f"The format is e5m2: +{gains['e5m2'].mean():.4f} (95\N{NO-BREAK SPACE}% interval "
        f"+{low:.4f} to +{high:.4f}), p {p * 1e4:.2f}e−4 after Holm over 4, 5 seeds, all better."
    )
    assert "The gain is beyond the margin of ±0.0050." in text
    for other in ("bf16", "e3m4", "e7m0"):
        assert not re.search(rf"benefit[^.]*{other}", text)
    assert UNTUNED not in text
    # Five seeds cannot give a sign-flip p of 0.05, and that is said.
    assert "the sign-flip test gives p 0.0625, at best 0.0625" in text


def test_a_gain_that_is_not_beyond_the_margin_is_not_said_to_be(
    say: Any, planted: ModuleType
) -> None:
    text = say(planted.noisy({"e5m2": 0.05}, 0.01), margin=0.045)
    assert "The format is e5m2" in text
    assert "That the gain is beyond the margin of ±0.0450 is not shown." in text


def test_no_effect_and_little_spread_is_none_beyond_the_margin(
    say: Any, planted: ModuleType
) -> None:
    text = say(planted.noisy({}, 0.0008, seed=3), tuned=True)
    assert text.startswith("No format benefits beyond the margin of ±0.0050")
    assert "Effects beyond ±0.0050 are ruled out in bf16, e5m2, e3m4 and e7m0." in text
    assert "shown to benefit" not in text
    assert "cannot tell" not in text


def test_noise_hides_an_effect_and_the_data_cannot_tell(say: Any, planted: ModuleType) -> None:
    text = say(planted.noisy({"e5m2": 0.01}, 0.05, seed=4), tuned=True)
    assert text.startswith("The data cannot tell whether any format benefits")
    assert "The smallest p is " in text
    assert re.search(r"an effect of that size calls for \S+ seeds", text)
    assert "shown to benefit" not in text
    assert "ruled out" not in text


def test_without_a_margin_nothing_is_too_small_to_matter(say: Any, planted: ModuleType) -> None:
    text = say(planted.noisy({}, 0.0008, seed=3), margin=None)
    assert text.startswith("The data cannot tell")
    assert "No margin was declared" in text
    assert "ruled out" not in text


def test_one_learning_rate_for_all_is_a_confounder(say: Any, planted: ModuleType) -> None:
    text = say(planted.noisy({"e5m2": 0.05}, 0.01))
    assert "The format is e5m2" in text
    assert "Learning rates were not tuned for each condition" in text
    assert UNTUNED in text


def test_a_rate_on_the_edge_censors_the_difference(say: Any, planted: ModuleType) -> None:
    score = planted.noisy({"e5m2": 0.05, "e3m4": 0.04}, 0.005)
    text = say(score, censored=["e5m2_manifold_adamw"])
    assert "The format is e3m4" in text
    assert "after Holm over 4" in text  # the censored group still counts
    assert "Not judged: e5m2, censored" in text
    gain = np.mean(
        [score("e5m2", "manifold_adamw", s) - score("e5m2", "adamw", s) for s in range(5)]
    )
    assert f"{gain:.4f}" not in text
    assert "benefit 1 of 4 formats" in text


def test_all_censored_is_no_verdict(say: Any, planted: ModuleType) -> None:
    conditions = [f"{fmt}_adamw" for fmt in FORMATS]
    text = say(planted.noisy({"e5m2": 0.05}, 0.01), censored=conditions)
    assert text.startswith("Every comparison is censored")
    assert "benefit" not in text


def test_divergence_on_the_baseline_is_a_gain_that_is_explained(
    say: Any, planted: ModuleType
) -> None:
    calm = planted.noisy({}, 0.002)

    def score(fmt: str, side: str, seed: int) -> float | None:
        if fmt == "e7m0" and side == "adamw":
            return None
        return float(calm(fmt, side, seed))

    text = say(score, tuned=True)
    assert "The format is e7m0" in text
    assert "5 pairs of e7m0 with a diverged run decide its gain." in text


AA = [("e0m7", "e1m6")]


def twins(real: Any, spoilt: float) -> Any:
    """e1m6 scores as e0m7 does, but for one seed."""

    def score(fmt: str, side: str, seed: int) -> float:
        if fmt != "e1m6":
            return float(real(fmt, side, seed))
        return float(real("e0m7", side, seed)) + (spoilt if seed == 2 else 0.0)

    return score


def test_a_broken_instrument_ends_the_verdict(say: Any, planted: ModuleType) -> None:
    score = twins(planted.noisy({"e5m2": 0.05}, 0.01), 0.003)
    text = say(score, AA, formats=("e0m7", "e1m6", "e5m2"))
    assert text.startswith("The instrument is not trustworthy: e0m7 and e1m6")
    assert "2 of 10 comparisons differ, by up to 0.0030" in text
    assert "benefit" not in text
    assert "e5m2" not in text


def test_a_control_that_holds_leaves_the_verdict_alone(say: Any, planted: ModuleType) -> None:
    score = twins(planted.noisy({"e5m2": 0.05}, 0.01), 0.0)
    text = say(score, AA, formats=("e0m7", "e1m6", "e5m2"))
    assert "The format is e5m2" in text
    assert "after Holm over 2" in text  # e0m7 and e1m6 are one hypothesis
    assert "trustworthy" not in text


def test_scales_that_are_no_powers_of_two_make_a_noise_floor(say: Any, planted: ModuleType) -> None:
    score = twins(planted.noisy({"e5m2": 0.02}, 0.002), 0.08)
    inexact = {"scaling": {"power_of_two": False}}
    text = say(score, AA, formats=("e0m7", "e1m6", "e5m2"), quantization=inexact)
    assert "trustworthy" not in text
    assert "shown to benefit" not in text
    assert "The gain in e5m2 lies within the noise floor of 0.0800" in text


PLACEBO = (
    {"type": "adamw"},
    {"type": "manifold_adamw"},
    {"type": "manifold_adamw", "stiffness": "permuted"},
)


@pytest.mark.parametrize(("lost", "geometry"), [(0.0, False), (0.04, True)])
def test_a_placebo_that_gains_as_much_takes_the_geometry_out(
    say: Any, planted: ModuleType, lost: float, geometry: bool
) -> None:
    plain = planted.noisy({"e5m2": 0.05}, 0.006)

    def score(fmt: str, side: str, seed: int) -> float:
        placebo = side.endswith("permuted") and fmt == "e5m2"
        return float(plain(fmt, side, seed)) - (lost if placebo else 0.0)

    text = say(score, sides=PLACEBO)
    assert "The format is e5m2" in text
    assert ("speaks for the geometry" in text) is geometry
    assert ("that it comes from the geometry is not shown" in text) is not geometry


def test_two_winners_and_which_of_them_gains_more(say: Any, planted: ModuleType) -> None:
    clear = say(planted.noisy({"e5m2": 0.08, "e3m4": 0.03}, 0.003))
    assert "shown to benefit 2 of 4 formats" in clear
    assert "The largest gain is in e5m2" in clear
    assert "Its lead over the next, e3m4, is +0.05" in clear


def test_that_the_first_gains_more_is_not_claimed_without_a_test(
    say: Any, planted: ModuleType
) -> None:
    text = say(planted.noisy({"e5m2": 0.051, "e3m4": 0.05}, 0.006))
    assert "shown to benefit 2 of 4 formats" in text
    assert re.search(r"That it gains more than the next, e\dm\d, is not shown", text)


def test_harm_is_named_as_harm(say: Any, planted: ModuleType) -> None:
    text = say(planted.noisy({"e7m0": -0.06}, 0.001, seed=3), margin=0.005)
    assert "shown to benefit" not in text
    assert text.startswith("No format benefits beyond the margin")
    assert "It does harm in e7m0: −0.0598" in text
    assert "5 seeds, none better" in text


def test_one_seed_proves_nothing(say: Any, planted: ModuleType) -> None:
    text = say(planted.noisy({"e5m2": 0.05}, 0.0), seeds=[0])
    assert text.startswith("The data cannot tell: one seed carries no spread")
    assert "the largest gain is in e5m2, +0.0500 (from " in text
    assert "shown to benefit" not in text


def test_a_uniform_grid_is_identical_by_construction(say: Any, planted: ModuleType) -> None:
    noisy = planted.noisy({}, 0.05, seed=4)
    numbers = numbers_of({"e0m7": load_format("e0m7")})
    text = say(
        lambda f, side, s: noisy(f, "adamw" if f == "e0m7" else side, s),
        numbers=numbers,
        formats=("e0m7", "e5m2", "e3m4"),
    )
    assert "In e0m7 both sides have the same score in every seed: on a uniform grid" in text


def test_missing_runs_are_told(say: Any, planted: ModuleType, tmp_path: Path) -> None:
    say(planted.noisy({"e5m2": 0.05}, 0.01))
    for folder in sorted(tmp_path.iterdir())[:2]:
        (folder / "status.json").unlink(missing_ok=True)
    text = verdict(find(read_suite(tmp_path)))
    assert "2 of 40 planned runs have no result yet." in text


def test_many_settings_are_counted_and_not_listed(say: Any, planted: ModuleType) -> None:
    sides = [{"type": "adamw"}, *({"type": "manifold_adamw", "site": s} for s in ("pre", "both"))]
    settings = [{"quantization.residency": r} for r in ("master", "grid")]
    text = say(
        lambda f, side, s: (
            0.5 + 0.001 * s * (side != "adamw") + 0.1 * (f == "e5m2" and "both" in side)
        ),
        sides=sides,
        settings=settings,
        tuned=True,
    )
    assert "shown to benefit 2 of 16 settings" in text
    assert "“e5m2, master, site both”" in text
    assert "bf16 (all 4 settings)" in text
