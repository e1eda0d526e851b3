"""The groups' tests against scipy and statsmodels, the family, and what is censored."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from altgrad_core.analysis.comparison import Comparison, compare
from altgrad_core.analysis.contrast import Delta, Pair
from altgrad_core.analysis.findings import Findings, find
from altgrad_core.analysis.groups import Group
from altgrad_core.interfaces.metric import Metric
from altgrad_core.results.stored import read_suite

FORMATS = ("bf16", "e5m2", "e3m4", "e7m0")


def findings(
    planted: ModuleType, f: ModuleType, folder: Path, same_grid: Any = (), **more: Any
) -> Findings:
    given = {"formats": FORMATS, "score": planted.noisy({"e5m2": 0.05}, 0.01), **more}
    planted.write_suite(f, folder, given.pop("score"), **given)
    return find(read_suite(folder), same_grid)


def delta(group: str, gains: list[float], metric: str = "m", fmt: str = "") -> Delta:
    pairs = tuple(Pair(seed, 0.5, 0.5 + gain, False) for seed, gain in enumerate(gains))
    return Delta(group, metric, pairs, (), Group(group, format=fmt or group, setting=""))


def test_each_number_of_a_group_by_other_means(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    score = planted.noisy({"e5m2": 0.05}, 0.01)
    found = findings(planted, fabricated, tmp_path, score=score, margin=0.005).comparisons
    raw = []
    for one in found:
        d = np.array(
            [score(one.group, "manifold_adamw", s) - score(one.group, "adamw", s) for s in range(5)]
        )
        test = stats.ttest_1samp(d, 0)
        low, high = test.confidence_interval(0.95)
        assert one.summary.mean == pytest.approx(d.mean())
        assert one.interval == pytest.approx((low, high))
        assert one.summary.t_p == pytest.approx(test.pvalue)
        flips = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T
        exact = np.mean(np.abs(flips @ d) >= abs(d.sum()) - 1e-12)
        assert one.summary.sign_flip_p == pytest.approx(exact)
        raw.append(test.pvalue)
        se = d.std(ddof=1) / math.sqrt(5)
        tost = max(stats.t.sf((d.mean() + 0.005) / se, 4), stats.t.cdf((d.mean() - 0.005) / se, 4))
        assert one.assessment.equivalence is not None
        assert one.assessment.equivalence.p == pytest.approx(tost)
    adjusted = multipletests(raw, method="holm")[1]
    assert [one.assessment.adjusted_p for one in found] == pytest.approx(list(adjusted))
    verdicts = {one.group: one.assessment.verdict for one in found}
    assert verdicts["e5m2"] == "benefit"
    assert set(verdicts.values()) <= {"benefit", "undecided"}


def test_formats_with_the_same_grid_are_one_hypothesis_in_each_setting(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    settings = [{"quantization.residency": r} for r in ("master", "grid")]
    found = findings(
        planted,
        fabricated,
        tmp_path,
        [("e0m7", "e1m6"), ("e1m6", "absent")],
        formats=["e5m2", "e0m7", "e1m6"],
        settings=settings,
    ).comparisons
    assert len(found) == 6
    assert {one.assessment.family for one in found} == {4}
    raw = {one.group: one.summary.t_p for one in found}
    distinct = [
        *(raw[f"e5m2, {r}"] for r in ("master", "grid")),
        *(max(raw[f"e0m7, {r}"], raw[f"e1m6, {r}"]) for r in ("master", "grid")),
    ]
    expected = multipletests(distinct, method="holm")[1]
    names = ("e5m2, master", "e5m2, grid", "e0m7, master", "e1m6, grid")
    adjusted = {one.group: one.assessment.adjusted_p for one in found}
    assert [adjusted[name] for name in names] == pytest.approx(list(expected))


def test_a_censored_group_has_no_number_and_counts_in_the_family(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    found = findings(
        planted, fabricated, tmp_path, censored=["e5m2_manifold_adamw"], margin=0.005
    ).comparisons
    one = next(c for c in found if c.group == "e5m2")
    assert one.censored == "censored (best rate at the edge, lr=0.003)"
    assert one.summary.n == 0
    assert one.assessment.verdict == "undecided"
    assert one.seeds is None
    assert one.cautions() == ()
    assert {c.assessment.family for c in found} == {4}
    others = [c for c in found if c.group != "e5m2"]
    smallest = min(others, key=lambda c: c.summary.t_p)
    assert smallest.assessment.adjusted_p == pytest.approx(min(1, 4 * smallest.summary.t_p))


def test_a_censored_baseline_censors_every_variant(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    sides = [{"type": "adamw"}, *({"type": "manifold_adamw", "site": s} for s in ("pre", "both"))]
    found = findings(
        planted, fabricated, tmp_path, sides=sides, censored=["e5m2_adamw"]
    ).comparisons
    assert [c.group for c in found if c.censored] == ["e5m2, site pre", "e5m2, site both"]


def test_placebos_are_no_hypotheses(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    sides = [
        {"type": "adamw"},
        {"type": "manifold_adamw"},
        {"type": "manifold_adamw", "stiffness": "permuted"},
    ]
    found = findings(planted, fabricated, tmp_path, sides=sides)
    assert len(found.deltas) == 8
    assert len(found.comparisons) == 4
    assert {c.assessment.family for c in found.comparisons} == {4}
    assert [d.place.placebo for d in found.placebos] == ["permuted"] * 4


def test_diverged_runs_are_the_worst_score(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    calm = planted.noisy({}, 0.01)

    def score(fmt: str, side: str, seed: int) -> float | None:
        broken = fmt == "e7m0" and side == "adamw" and seed in (1, 3)
        return None if broken else calm(fmt, side, seed)

    found = findings(planted, fabricated, tmp_path, score=score).comparisons
    one = next(c for c in found if c.group == "e7m0")
    gains = [
        calm("e7m0", "manifold_adamw", s) - (0 if s in (1, 3) else calm("e7m0", "adamw", s))
        for s in range(5)
    ]
    assert one.summary.mean == pytest.approx(np.mean(gains))
    assert one.delta.diverged == 2
    assert any("2 of 5 pairs have a diverged run" in said for said in one.cautions())


def test_a_loss_is_turned_round_for_the_tests_and_back_for_the_interval() -> None:
    falls = [-0.1, -0.12, -0.09, -0.11]
    loss = Metric("loss", "Loss", "lower")
    (one,) = compare([replace(delta("e5m2", falls, "final/test/loss"), declared=loss)])
    low, high = stats.ttest_1samp(falls, 0).confidence_interval(0.95)
    assert one.assessment.verdict == "benefit"
    assert one.summary.mean > 0
    assert one.interval == pytest.approx((low, high))


def test_equal_scores_in_every_seed_are_identical_and_no_finding() -> None:
    (one,) = compare([delta("e0m7", [0.0, 0.0, 0.0])], margin=0.01)
    assert one.identical
    assert one.assessment.verdict == "undecided"
    (single,) = compare([delta("e0m7", [0.0])])
    assert not single.identical


def test_planning_seeds_for_the_first_hurdle() -> None:
    gains = [0.01, 0.02, 0.03, 0.0, 0.015]
    alone, *_ = compare([delta("a", gains)])
    among, *_ = compare([delta("a", gains), *(delta(n, [0.0, 0.01]) for n in "bcdefg")])
    assert alone.seeds is not None
    assert among.seeds is not None
    assert alone.seeds.alpha == 0.05
    assert among.seeds.alpha == pytest.approx(0.05 / 7)
    assert int(str(among.seeds.needed)) > int(str(alone.seeds.needed))


def test_seven_formats_without_an_effect_seldom_show_one() -> None:
    """The whole rule, simulated: the share of reports with any claim of benefit or harm."""
    generator = np.random.default_rng(11)
    claims, reports = 0, 400
    for _ in range(reports):
        groups = [delta(f"f{n}", list(generator.normal(0, 0.01, 5))) for n in range(7)]
        found = compare(groups, margin=0.005)
        claims += any(claimed(one) for one in found)
    # Binomial(400, 0.05): 33 or fewer with a probability of 99.8 %.
    assert claims <= 33


def claimed(one: Comparison) -> bool:
    return one.assessment.verdict in ("benefit", "harm")
