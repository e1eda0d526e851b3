"""A/A pairs: what decides, and what decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from planted import FORMATS, judged, make_suite, noisy

from altgrad_core.interfaces.section import Findings

TWINS = ("bf16", "e1m6", "e0m7")


def found(apart: float = 0.01, other: Mapping[str, Any] | None = None, **options: Any) -> Findings:
    """Two formats with one grid whose runs end ``apart``; ``other`` is changed in the second's runs."""
    score = noisy({}, 0.01)
    return judged(
        make_suite(
            lambda f, s, n: score("e1m6", s, n) + (apart if f == "e0m7" else 0.0),
            formats=TWINS,
            change=lambda f, s, n: (other or {}) if f == "e0m7" else {},
            **options,
        )
    )


def test_pairs_are_equal_in_all_but_the_format() -> None:
    twins = found(0.0).twins
    assert twins["status"].tolist() == ["equal"] * 10
    assert set(twins["formats"]) == {"e1m6 and e0m7"}
    assert set(zip(twins["setting"], twins["seed"], strict=True)) == {
        (side, seed) for side in ("old", "new") for seed in range(5)
    }


def test_a_difference_where_equality_is_promised_is_a_fault() -> None:
    twins = found().twins
    assert set(twins["status"]) == {"differ"}
    assert twins["difference"].tolist() == pytest.approx([0.01] * 10)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"quantization": {"scaling": {"power_of_two": False}}}, "scales are not powers of two"),
        (
            {"quantization": {"activation_scaling": {"power_of_two": False}}},
            "scales are not powers of two",
        ),
        ({"environment": {"threads": 3}}, "they ran with different numbers of threads"),
        (
            {"environment": {"micro_batches": 2}},
            "batches were cut into different numbers of parts",
        ),
        ({"environment": {"packages": {"torch": "3"}}}, "they ran with different versions"),
        ({"data": "11"}, "they had different data"),
    ],
)
def test_where_equality_is_not_promised_a_difference_decides_nothing(
    other: dict[str, Any], why: str
) -> None:
    result = found(other=other)
    assert set(result.twins["status"]) == {"undecided"}
    assert set(result.twins["why"]) == {why}
    assert "not trustworthy" not in " ".join(result.verdict)


def test_a_stiffness_in_the_units_of_the_grid_promises_nothing() -> None:
    sides = ({"type": "old"}, {"type": "new", "normalize": "none"})
    twins = found(sides=sides).twins
    status = dict(zip(twins["setting"], twins["status"], strict=True))
    assert status == {"old": "differ", "new": "undecided"}


@pytest.mark.parametrize(("ended", "why"), [(("e0m7",), "the second run"), (TWINS, "both runs")])
def test_runs_that_diverged_decide_nothing(ended: tuple[str, ...], why: str) -> None:
    score = noisy({}, 0.01)
    suite = make_suite(
        lambda f, s, n: None if f in ended and n == 0 else score("e1m6", s, n), formats=TWINS
    )
    twins = judged(suite).twins
    first = twins[twins["seed"] == 0]
    assert set(first["status"]) == {"undecided"}
    assert set(first["why"]) == {f"{why} diverged"}
    assert set(twins[twins["seed"] > 0]["status"]) == {"equal"}


def test_formats_that_were_not_run_have_no_twins() -> None:
    assert judged(make_suite(noisy({}, 0.01))).twins.empty
    assert {"e1m6", "e0m7"} <= set(FORMATS.index)
