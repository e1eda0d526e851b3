"""Which cells are compared with which, and what the comparisons are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pytest

from altgrad_core.analysis.design import (
    Group,
    axes_of,
    design_of,
    groups_of,
    panels_of,
    settings_of,
    short_labels,
)
from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.section import Question

ACCURACY = Metric("accuracy", "Accuracy", "higher", worst=0.0, primary=True)
Side = Mapping[str, Any]
OLD: Side = {"type": "old"}
SITES: tuple[Side, ...] = (OLD, {"type": "new", "site": "pre"}, {"type": "new", "site": "both"})
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


def ask(axis: str = "optimizer.type", baseline: str = "old", treatment: str = "new") -> Question:
    return Question(axis, baseline, treatment, "final/test/accuracy", ACCURACY)


def table(
    sides: Sequence[Side] = (OLD, {"type": "new"}),
    settings: Sequence[Mapping[str, Any]] = ({},),
    formats: Sequence[str] = ("bf16", "e5m2"),
) -> pd.DataFrame:
    """Planned runs that have not begun, one seed."""
    rows = []
    for fmt in formats:
        for setting in settings:
            for side in sides:
                axes = {"quantization.format": fmt, **setting}
                axes |= {k if "." in k else f"optimizer.{k}": v for k, v in side.items()}
                condition = "_".join(map(str, (fmt, *side.values(), *setting.values())))
                head = {"condition": condition, "format": fmt, "optimizer": side["type"]}
                rows.append(head | {"seed": 0, "planned": True, "settings": ""} | axes)
    return pd.DataFrame(rows)


def found(runs: pd.DataFrame, question: Question | None = None) -> list[Group]:
    return list(groups_of(runs, question or ask()))


def test_every_variant_is_compared_with_the_same_baseline() -> None:
    groups = found(table(SITES))
    assert [g.label for g in groups] == [
        f"{fmt}, site {site}" for fmt in ("bf16", "e5m2") for site in ("pre", "both")
    ]
    last = groups[3]
    assert (last.format, last.setting, last.variant) == ("e5m2", "site both", "site both")
    sides = [set(side["condition"]) for side in (last.left, last.right)]
    assert sides == [{"e5m2_old"}, {"e5m2_new_both"}]


def test_a_group_shares_its_place_with_its_reference() -> None:
    places = {(g.format, g.variant): g.place for g in found(table(SITES, RESIDENCY[:2]))}
    assert places["bf16", "site pre"] == places["e5m2", "site pre"]
    assert places["bf16", "site pre"] != places["e5m2", "site both"]


def test_groups_are_named_in_short_words() -> None:
    names = [g.label for g in found(table(SITES, RESIDENCY, ("e5m2", "e3m4")))]
    assert len(names) == len(set(names)) == 2 * 4 * 2
    assert names[:3] == [
        "e5m2, master, site pre",
        "e5m2, master, site both",
        "e5m2, grid, nearest, site pre",
    ]
    assert "e3m4, grid, nearest, kahan, site both" in names
    assert "e3m4, grid, stochastic, site both" in names


def test_numbers_and_truths_are_named_with_their_axis() -> None:
    settings = [
        {"model.num_layers": n, "quantization.quantize_classifier": flag}
        for n in (1, 2)
        for flag in (True, False)
    ]
    names = [g.label for g in found(table(settings=settings, formats=("e5m2",)))]
    assert sorted(names) == [
        f"num_layers={n}, quantize_classifier={flag}" for n in (1, 2) for flag in ("false", "true")
    ]


def test_words_of_two_axes_are_told_apart() -> None:
    axes = ["a.mode", "b.mode"]
    rows = [{"a.mode": x, "b.mode": y} for x in ("fast", "slow") for y in ("fast", "slow")]
    assert short_labels(axes, rows)[1] == "a.mode fast, b.mode slow"


def test_an_axis_that_follows_from_the_sides_makes_no_groups() -> None:
    """A batch size that only a third optimizer has twice must not part what is to be compared."""
    sides = [
        {"type": "old", "training.batch_size": 8},
        {"type": "new", "training.batch_size": 16},
        {"type": "third", "training.batch_size": 8},
        {"type": "third", "training.batch_size": 16},
    ]
    runs = table(sides)
    assert "training.batch_size" in axes_of(runs)
    assert [g.label for g in found(runs)] == ["bf16", "e5m2"]


def test_an_axis_of_the_treatment_alone_is_its_own() -> None:
    laid = design_of(table(SITES, RESIDENCY[:2]), ask())
    assert laid.shared == ("quantization.format", "quantization.residency")
    assert laid.own == ("optimizer.site",)


def test_variants_of_the_baseline_are_compared_too() -> None:
    names = [
        g.label for g in found(table(SITES, formats=("e5m2",)), ask("optimizer.type", "new", "old"))
    ]
    assert names == ["e5m2, against site pre", "e5m2, against site both"]


def test_the_contrast_may_be_between_two_formats_of_one_plugin() -> None:
    formats = ("exmy (exponent_bits=2)", "exmy (exponent_bits=3)", "exmy (exponent_bits=4)")
    groups = found(table(formats=formats), ask("quantization.format", *formats[:2]))
    assert [(g.label, g.format) for g in groups] == [("old", ""), ("new", "")]


def test_a_contrast_that_the_plan_does_not_have_makes_no_groups() -> None:
    assert found(table(), ask("training.steps", "1", "2")) == []
    assert found(table(), ask("optimizer.type", "old", "never")) == []


def test_placebos_are_known_and_keep_the_place_that_they_stand_in() -> None:
    sides = [
        OLD,
        {"type": "new", "site": "both"},
        {"type": "new", "site": "both", "stiffness": "permuted"},
        {"type": "new", "site": "post", "stiffness": "constant"},
    ]
    groups = found(table(sides, formats=("e5m2",)))
    assert [(g.label, g.placebo) for g in groups] == [
        ("e5m2, site both", ""),
        ("e5m2, site both, stiffness permuted", "permuted"),
        ("e5m2, site post, stiffness constant", "constant"),
    ]
    assert groups[0].family == groups[1].family != groups[2].family


@pytest.mark.parametrize("lent", [("e5m2",), ("e5m2", "e3m4")])
def test_what_is_borrowed_is_named(lent: tuple[str, ...]) -> None:
    sides = [OLD, {"type": "new", "stiffness": "grid"}]
    sides += [{"type": "new", "stiffness": "borrowed", "borrowed_format": f} for f in lent]
    groups = found(table(sides, formats=("bf16", "e5m2", "e3m4")))
    lends = [g.lends for g in groups if g.placebo == "borrowed" and g.format == "bf16"]
    assert lends == list(lent)
    plain = [g.family for g in groups if not g.placebo]
    assert {g.family for g in groups if g.placebo} == set(plain)


def test_settings_of_conditions_leave_the_format_out() -> None:
    names = {"old": "old", "new_pre": "new, site pre", "new_both": "new, site both"}
    assert settings_of(table(SITES)) == {
        f"{fmt}_{name}": label for fmt in ("bf16", "e5m2") for name, label in names.items()
    }


def test_panels_and_sides_of_conditions() -> None:
    sides = [OLD, {"type": "new"}, {"type": "third"}]
    laid = panels_of(table(sides, RESIDENCY[:2]), ask())
    assert laid["e5m2_old_grid_nearest_none"] == ("e5m2, grid", "baseline")
    assert laid["bf16_new_master_nearest_none"] == ("bf16, master", "treatment")
    assert laid["bf16_third_master_nearest_none"] == ("bf16, master", "")
    assert set(panels_of(table(), None).values()) == {("", "")}


def test_where_no_run_is_planned_any_longer_there_are_no_panels() -> None:
    """As under a declared question, when seeds and settings have changed since."""
    assert panels_of(table().assign(planned=False), ask()) == {}
