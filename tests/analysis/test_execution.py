"""Native and simulated runs are never taken for one kind."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from planted import effect, judged, make_suite, noisy

from altgrad_core.interfaces.blocks import Paragraph
from altgrad_core.interfaces.plugin import NoSettings
from altgrad_plugins.sections.shared import SPEED, executions
from altgrad_plugins.sections.throughput import TOLD, Throughput

FORMATS = ("bf16", "e3m4", "e5m2")


def native(*which: str) -> Any:
    """Which formats, or sides, of a suite are executed natively."""

    def change(fmt: str, side: str, seed: int) -> dict[str, Any]:
        if fmt not in which and side not in which:
            return {}
        return {"quantization": {"execution": "native"}}

    return change


def suite(*which: str, **more: Any) -> Any:
    return make_suite(noisy({"e5m2": 0.05}, 0.001), formats=FORMATS, change=native(*which), **more)


def test_a_side_that_is_executed_otherwise_is_named() -> None:
    row = effect(judged(suite("new")), "e5m2")
    assert "quantization.execution: simulated against native" in row["confounds"]
    assert row["reference_group"] == "bf16"  # whose sides differ likewise


def test_a_question_about_execution_is_no_confound() -> None:
    contrast = {"axis": "quantization.execution", "baseline": "simulated", "treatment": "native"}

    def axes(fmt: str, side: Any) -> dict[str, Any]:
        word = "native" if side["type"] == "new" else "simulated"
        return {"quantization.format": fmt, "quantization.execution": word}

    row = effect(judged(suite("new", axes=axes, contrast=contrast)), "e5m2")
    assert "execution" not in row["confounds"]


@pytest.mark.parametrize(
    ("which", "reference"), [(("e5m2",), ""), (("bf16",), ""), (FORMATS, "bf16"), ((), "bf16")]
)
def test_a_group_is_measured_against_a_reference_that_was_executed_alike(
    which: tuple[str, ...], reference: str
) -> None:
    found = judged(suite(*which))
    row = effect(found, "e5m2")
    assert row["reference_group"] == reference
    assert math.isnan(row["excess"]) == (not reference)
    mixed = which not in ((), FORMATS)
    assert math.isnan(row["best_p"]) == mixed
    assert ("and others are not" in row["confounds"]) == mixed
    if which == ("e5m2",):
        assert row["confounds"] == "executed natively, and others are not"
        assert effect(found, "e3m4")["confounds"] == "executed in simulation, and others are not"


def test_where_execution_is_an_axis_names_say_it_and_each_kind_has_its_reference() -> None:
    def axes(fmt: str, side: Any) -> dict[str, Any]:
        return {
            "quantization.format": fmt,
            "optimizer.type": side["type"],
            "quantization.execution": side["mode"],
        }

    def change(fmt: str, side: str, seed: int) -> dict[str, Any]:
        return {}

    sides = [
        {"type": kind, "mode": mode} for mode in ("simulated", "native") for kind in ("old", "new")
    ]
    found = judged(
        make_suite(noisy({}, 0.01), formats=FORMATS, sides=sides, axes=axes, change=change)
    )
    for mode in ("simulated", "native"):
        row = effect(found, f"e5m2, {mode}")
        assert row["reference_group"] == f"bf16, {mode}"
        assert row["confounds"] == ""


def test_speeds_of_the_two_are_told_apart() -> None:
    found = judged(suite("e5m2"))
    speeds = {SPEED: range(len(found.conditions)), f"{SPEED} std": 0.1, f"{SPEED} n": 3}
    found = replace(found, conditions=found.conditions.assign(**speeds))
    executed = executions(found)
    assert (executed["e5m2_new"], executed["e3m4_new"]) == ("native", "simulated")
    blocks = Throughput(NoSettings()).build(found)
    simulated, only = (block.text for block in blocks if isinstance(block, Paragraph))
    assert simulated.startswith(f"Simulated conditions, 4 in all. {TOLD['simulated']}")
    assert "e5m2" not in simulated
    assert only.startswith(f"Native conditions, 2 in all. {TOLD['native']}")
    assert "The fastest condition is e5m2" in only
    assert "e3m4" not in only
