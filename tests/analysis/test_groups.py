"""Which cells are compared with which, and what the comparisons are called."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from altgrad_core.analysis.contrast import deltas
from altgrad_core.analysis.curves import panels
from altgrad_core.analysis.groups import axes_of, design, groups, settings_of, short_labels
from altgrad_core.results.collect import load_curves, load_results
from altgrad_core.results.stored import Contrast

CONTRAST = Contrast(
    axis="optimizer.type",
    baseline="adamw",
    treatment="manifold_adamw",
    metric="final/test/f1_micro_tuned",
)
ADAMW = {"type": "adamw"}
SITES = [ADAMW, *({"type": "manifold_adamw", "site": site} for site in ("pre", "both"))]
RESIDENCY = [
    {
        "quantization.residency": residency,
        "quantization.rounding": rounding,
        "quantization.compensation": compensation,
    }
    for residency, rounding, compensation in (
        ("master", "nearest", "none"),
        ("grid", "nearest", "none"),
        ("grid", "stochastic", "none"),
        ("grid", "nearest", "kahan"),
    )
]


def constant(fmt: str, side: str, seed: int) -> float:
    return 0.5


def write(planted: ModuleType, f: ModuleType, folder: Path, **more: Any) -> Path:
    given = {"formats": ["bf16", "e5m2"], "seeds": [0], **more}
    planted.write_suite(f, folder, given.pop("score", constant), **given)
    return folder


def test_every_variant_is_compared_with_the_same_baseline(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    scores = {"adamw": 0.5, "manifold_adamw pre": 0.6, "manifold_adamw both": 0.7}
    write(planted, fabricated, tmp_path, sides=SITES, score=lambda f, side, s: scores[side])
    found = deltas(load_results(tmp_path), CONTRAST)
    assert [d.group for d in found] == [
        f"{fmt}, site {site}" for fmt in ("bf16", "e5m2") for site in ("pre", "both")
    ]
    assert [d.delta.mean for d in found] == pytest.approx([0.1, 0.2, 0.1, 0.2])
    first = found[3].place
    assert (first.panel, first.format, first.setting) == ("e5m2", "e5m2", "site both")
    assert first.baseline == ("e5m2_adamw",)
    assert first.treatment == ("e5m2_manifold_adamw_both",)


def test_groups_are_named_in_short_words(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    write(planted, fabricated, tmp_path, sides=SITES, settings=RESIDENCY, formats=["e5m2", "e3m4"])
    names = [g.label for g in groups(load_results(tmp_path), CONTRAST)]
    assert len(names) == len(set(names)) == 2 * 4 * 2
    assert names[:3] == [
        "e5m2, master, site pre",
        "e5m2, master, site both",
        "e5m2, grid, nearest, site pre",
    ]
    assert "e3m4, grid, nearest, kahan, site both" in names
    assert "e3m4, grid, stochastic, site both" in names


def test_numbers_and_truths_are_named_with_their_axis(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    settings = [
        {"model.num_layers": n, "quantization.quantize_classifier": flag}
        for n in (1, 2)
        for flag in (True, False)
    ]
    write(planted, fabricated, tmp_path, settings=settings, formats=["e5m2"])
    names = [g.label for g in groups(load_results(tmp_path), CONTRAST)]
    assert sorted(names) == [
        f"num_layers={n}, quantize_classifier={flag}" for n in (1, 2) for flag in ("false", "true")
    ]


def test_words_of_two_axes_are_told_apart() -> None:
    axes = ["a.mode", "b.mode"]
    rows = [{"a.mode": x, "b.mode": y} for x in ("fast", "slow") for y in ("fast", "slow")]
    assert short_labels(axes, rows)[1] == "a.mode fast, b.mode slow"


def test_an_axis_that_follows_from_the_others_makes_no_groups(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    """A learning rate zipped to the optimizer must not part what is to be compared."""
    sides = [
        {"type": "adamw", "lr": 0.001},
        {"type": "manifold_adamw", "lr": 0.0003},
    ]
    write(planted, fabricated, tmp_path, sides=sides)
    results = load_results(tmp_path)
    assert axes_of(results, "optimizer.type") == ["optimizer.type", "quantization.format"]
    assert [g.label for g in groups(results, CONTRAST)] == ["bf16", "e5m2"]


def test_an_axis_of_the_treatment_alone_is_its_own(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    write(planted, fabricated, tmp_path, sides=SITES, settings=RESIDENCY[:2])
    laid = design(load_results(tmp_path), CONTRAST)
    assert laid.shared == ("quantization.format", "quantization.residency")
    assert laid.own == ("optimizer.site",)


def test_variants_of_the_baseline_are_compared_too(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    turned = Contrast(
        axis="optimizer.type",
        baseline="manifold_adamw",
        treatment="adamw",
        metric="final/test/f1_micro_tuned",
    )
    write(planted, fabricated, tmp_path, sides=SITES, formats=["e5m2"])
    names = [g.label for g in groups(load_results(tmp_path), turned)]
    assert names == ["e5m2, against site pre", "e5m2, against site both"]


def test_placebos_are_known_and_keep_the_variant_that_they_stand_in_for(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    sides = [
        ADAMW,
        {"type": "manifold_adamw", "site": "both"},
        {"type": "manifold_adamw", "site": "both", "stiffness": "permuted"},
        {"type": "manifold_adamw", "site": "post", "stiffness": "constant"},
    ]
    write(planted, fabricated, tmp_path, sides=sides, formats=["e5m2"])
    found = groups(load_results(tmp_path), CONTRAST)
    assert [(g.label, g.placebo, g.family) for g in found] == [
        ("e5m2, site both", "", "site both"),
        ("e5m2, site both, stiffness permuted", "permuted", "site both"),
        ("e5m2, site post, stiffness constant", "constant", "site post"),
    ]


def test_settings_of_conditions_leave_the_format_out(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    write(planted, fabricated, tmp_path, sides=SITES)
    assert settings_of(load_results(tmp_path)) == {
        f"{fmt}_{name}": label
        for fmt in ("bf16", "e5m2")
        for name, label in (
            ("adamw", "adamw"),
            ("manifold_adamw_pre", "manifold_adamw, site pre"),
            ("manifold_adamw_both", "manifold_adamw, site both"),
        )
    }


def test_panels_have_a_line_for_every_variant_in_a_colour_of_its_own(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    f = fabricated

    def loss(fmt: str, side: str, seed: int) -> list[str]:
        return [f.line(1, "train", {"train/all/loss": 1.0})]

    sides = [*reversed(SITES), {"type": "sgd"}]
    write(planted, f, tmp_path, sides=sides, settings=RESIDENCY[:2], more=loss)
    results, curves = load_results(tmp_path), load_curves(tmp_path, ["train/all/loss"])
    found = panels(results, curves, "train/all/loss", CONTRAST)
    assert [p.title for p in found] == ["bf16, master", "bf16, grid", "e5m2, master", "e5m2, grid"]
    for panel in found[1:]:
        ranks = {line.label: line.rank for line in panel.lines}
        assert ranks == {
            "bf16_adamw_master_nearest_none": None,  # the reference
            "adamw": 0,
            "manifold_adamw, site both": 1,
            "manifold_adamw, site pre": 2,
            "sgd": 3,
        }
