"""Verdicts: each case by hand, and how often simulated reports say what is not so."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from altgrad_core.analysis.paired import paired_summary
from altgrad_core.analysis.verdicts import Assessment, assess, classify, reason

MARGIN = 0.01
GOOD = [0.05, 0.06, 0.055, 0.052, 0.058]
BAD = [-value for value in GOOD]
SMALL = [0.0020, 0.0021, 0.0022, 0.0019, 0.0018]
"""Above 0 beyond doubt, and well within the margin."""
NOTHING = [0.001, -0.001, 0.0005, -0.0004, 0.0]
WIDE = [0.2, -0.1, 0.05, -0.2, 0.1]
EQUAL = [0.0] * 5


def one(values: list[float], margin: float | None = MARGIN) -> Assessment:
    return assess({"a": paired_summary(values)}, margin=margin)["a"]


@pytest.mark.parametrize(
    ("values", "margin", "verdict", "negligible", "said"),
    [
        (GOOD, MARGIN, "benefit", False, "The 95 % interval lies above 0, and p is"),
        (BAD, MARGIN, "harm", False, "The 95 % interval lies below 0"),
        (GOOD, None, "benefit", False, "above 0"),
        (SMALL, MARGIN, "equivalent", True, "differs from 0, but is negligible"),
        (SMALL, None, "benefit", False, "above 0"),
        (NOTHING, MARGIN, "equivalent", False, "Effects beyond ±0.0100 are ruled out"),
        (NOTHING, None, "undecided", False, "The data cannot tell (adjusted p"),
        (WIDE, MARGIN, "undecided", False, "not beyond the margin of ±0.0100"),
        (EQUAL, MARGIN, "undecided", False, "not evidence of zero variance"),
        ([0.25] * 5, MARGIN, "undecided", False, "not evidence of zero variance"),
        ([0.5], MARGIN, "undecided", False, "nothing to test with 1 pair"),
        ([], MARGIN, "undecided", False, "nothing to test with 0 pairs"),
    ],
)
def test_each_verdict(
    values: list[float], margin: float | None, verdict: str, negligible: bool, said: str
) -> None:
    found = one(values, margin)
    assert found.verdict == verdict
    assert found.negligible is negligible
    assert said in reason(found)


def test_what_passes_alone_may_not_pass_among_others() -> None:
    barely = [0.01, 0.03, 0.02, 0.05, 0.005]
    assert one(barely).verdict == "benefit"
    summaries = {"a": paired_summary(barely)} | {k: paired_summary(WIDE) for k in "bcdefg"}
    found = assess(summaries, margin=MARGIN)["a"]
    assert found.family == 7
    assert found.verdict == "undecided"
    assert "would pass alone, but not as one of 7" in reason(found)
    assert found.summary.low > 0


def test_equivalence_is_adjusted_as_well() -> None:
    barely = [0.002, -0.004, 0.008, 0.003, -0.006]
    assert one(barely).verdict == "equivalent"
    summaries = {"a": paired_summary(barely)} | {k: paired_summary(WIDE) for k in "bcdefg"}
    found = assess(summaries, margin=MARGIN)["a"]
    assert found.verdict == "undecided"
    assert "equivalence within ±0.0100 would pass alone" in reason(found)


def test_a_failed_format_does_not_sharpen_the_others() -> None:
    full = assess({k: paired_summary(GOOD if k == "a" else WIDE) for k in "abc"})["a"]
    gone = assess({k: paired_summary(GOOD if k == "a" else []) for k in "abc"})["a"]
    assert full.adjusted_p == gone.adjusted_p == pytest.approx(3 * full.summary.t_p)


def test_equal_formats_count_once_and_share_their_verdict() -> None:
    summaries = {"a": paired_summary(GOOD), "b": paired_summary(GOOD), "c": paired_summary(WIDE)}
    found = assess(summaries, margin=MARGIN, equal_pairs=iter([("a", "b")]))
    assert [f.family for f in found.values()] == [2, 2, 2]
    assert (
        found["a"].adjusted_p == found["b"].adjusted_p == pytest.approx(2 * found["a"].summary.t_p)
    )
    assert [f.verdict for f in found.values()] == ["benefit", "benefit", "undecided"]


def test_equal_differences_have_no_verdict_whatever_the_p_values() -> None:
    """Both sides diverged in every seed: two worst scores are equal by decree."""
    assert classify(paired_summary(EQUAL), math.nan, 0.0) == "undecided"
    assert classify(paired_summary([0.25] * 5), 0.0) == "undecided"


def test_interval_and_level_belong_together() -> None:
    with pytest.raises(ValueError, match=r"needs the 0\.99 interval"):
        classify(paired_summary(GOOD), 0.001, alpha=0.01)
    assert classify(paired_summary(GOOD, confidence=0.99), 0.001, alpha=0.01) == "benefit"
    assert classify(paired_summary(GOOD), math.nan) == "undecided"


# Simulated reports: five formats, the last two of them equal, five seeds that all formats share.

NAMES = "abcde"
REPORTS = 2000


def simulated(effects: Mapping[str, float], seed: int, std: float = 0.01) -> list[dict[str, str]]:
    generator = np.random.default_rng(seed)
    own = generator.normal(size=(REPORTS, 4, 5))
    common = generator.normal(size=(REPORTS, 1, 5))
    noise: NDArray[np.float64] = std * (0.8 * own + 0.6 * common)
    noise = np.concatenate([noise, noise[:, 3:]], axis=1)
    noise += np.array([effects.get(name, 0.0) for name in NAMES])[:, None]
    reports = []
    for report in noise:
        summaries = {name: paired_summary(r) for name, r in zip(NAMES, report, strict=True)}
        found = assess(summaries, margin=0.02, equal_pairs=[("d", "e")])
        reports.append({name: f.verdict for name, f in found.items()})
    return reports


def share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


LIMIT = float(stats.binom.interval(1 - 1e-4, REPORTS, 0.05)[1] / REPORTS)


def test_no_effect_anywhere_is_called_one_in_at_most_5_percent_of_reports() -> None:
    reports = simulated({}, seed=41)
    assert share([bool({"benefit", "harm"} & set(r.values())) for r in reports]) <= LIMIT


def test_a_planted_benefit_is_found_where_it_is_and_only_there() -> None:
    reports = simulated({"b": 0.06}, seed=42)
    assert share([r["b"] == "benefit" for r in reports]) > 0.99
    others = [{v for k, v in r.items() if k != "b"} for r in reports]
    assert share([bool({"benefit", "harm"} & verdicts) for verdicts in others]) <= LIMIT
    assert share([r["b"] in ("equivalent", "harm") for r in reports]) == 0


def test_a_planted_harm_in_an_equal_pair_is_found_in_both() -> None:
    reports = simulated({"d": -0.06, "e": -0.06}, seed=43)
    assert share([r["d"] == r["e"] == "harm" for r in reports]) > 0.99
    assert all(r["d"] == r["e"] for r in reports)


def test_effects_at_the_margin_are_called_equivalent_in_at_most_5_percent_of_reports() -> None:
    reports = simulated(dict.fromkeys(NAMES, 0.02), seed=44, std=0.003)
    assert share(["equivalent" in r.values() for r in reports]) <= LIMIT
