"""What the two sides of a comparison do not share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest

from altgrad_core.analysis.audit import Audit, audit
from altgrad_core.analysis.design import Group
from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.section import Question

ACCURACY = Metric("accuracy", "Accuracy", "higher", worst=0.0, primary=True)
SETTINGS: dict[str, Any] = {
    "task": {"name": "t", "settings": {"data": {"top_k": 5}, "model": {"layers": 2}}},
    "quantization": {
        "format": {"name": "e5m2", "settings": {}},
        "rounding": "nearest",
        "scaling": {"mode": "current"},
    },
    "optimizer": {"name": "adam", "settings": {"beta": 0.9}},
    "training": {"learning_rate": 0.001, "batch_size": 8, "schedule": "constant"},
    "monitors": [{"name": "clip", "settings": {"at": 1.0}}],
}


def changed(*path: str, to: Any) -> dict[str, Any]:
    """The settings with one of them changed."""
    found: dict[str, Any] = json.loads(json.dumps(SETTINGS))
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return found


def side(settings: Mapping[str, Any], seeds: int = 5, **more: Any) -> pd.DataFrame:
    row = {"condition": "c", "learning_rate": 0.001, "device": "A", "threads": 1.0}
    row |= {"versions": "", "fingerprint": "{}", "settings": json.dumps(settings), "status": "ok"}
    return pd.DataFrame([row | {"seed": seed} | more for seed in range(seeds)])


def compare(
    left: Mapping[str, Any],
    right: Mapping[str, Any],
    axis: str = "optimizer.type",
    own: tuple[str, ...] = (),
    **more: Any,
) -> Audit:
    group = Group("g", "e5m2", "", "", (), (), "", "", own, side(left), side(right, **more))
    question = Question(axis, "a", "b", "final/test/accuracy", ACCURACY)
    return audit(group, question)


def test_equal_sides_share_everything() -> None:
    assert compare(SETTINGS, SETTINGS) == Audit()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("training", "schedule"), "linear", "training.schedule: constant against linear"),
        (("task", "settings", "data", "top_k"), 9, "data.top_k: 5 against 9"),
        (("task", "settings", "model", "layers"), 3, "model.layers: 2 against 3"),
        (("task", "name"), "u", "task: t against u"),
        (("quantization", "rounding"), "stochastic", "quantization.rounding: nearest against st"),
        (("quantization", "scaling", "mode"), "frozen", "quantization.scaling.mode: current aga"),
        (("quantization", "format", "name"), "e3m4", "quantization.format: e5m2 against e3m4"),
        (("monitors",), [], "monitors.clip: at=1 against nothing"),
    ],
)
def test_any_setting_that_moves_with_the_optimizer_is_named(
    path: tuple[str, ...], value: Any, said: str
) -> None:
    assert compare(SETTINGS, changed(*path, to=value)).confounds.startswith(said)


@pytest.mark.parametrize(
    ("axis", "path", "value"),
    [
        ("optimizer.type", ("optimizer",), {"name": "lion", "settings": {"beta": 0.99}}),
        ("optimizer.beta", ("optimizer", "settings", "beta"), 0.5),
        ("optimizer.adam.beta", ("optimizer", "settings", "beta"), 0.5),
        ("quantization.rounding", ("quantization", "rounding"), "stochastic"),
        ("quantization.scaling", ("quantization", "scaling", "mode"), "frozen"),
        ("quantization.format", ("quantization", "format", "name"), "e3m4"),
        ("training.batch_size", ("training", "batch_size"), 16),
        ("data.top_k", ("task", "settings", "data", "top_k"), 9),
    ],
)
def test_what_is_asked_is_no_confound(axis: str, path: tuple[str, ...], value: Any) -> None:
    assert compare(SETTINGS, changed(*path, to=value), axis).confounds == ""


def test_where_the_data_lie_is_no_difference() -> None:
    here = changed("task", "settings", "data", "path", to="/a")
    there = changed("task", "settings", "data", "path", to="/b")
    assert compare(here, there) == Audit()


def test_an_optimizer_that_moves_with_another_axis_is_one() -> None:
    other = changed("optimizer", "settings", "beta", to=0.5)
    found = compare(SETTINGS, other, "quantization.rounding").confounds
    assert found == "optimizer.beta: 0.9 against 0.5"


def test_an_axis_of_one_side_alone_is_part_of_the_design() -> None:
    other = changed("quantization", "rounding", to="stochastic")
    assert compare(SETTINGS, other, own=("quantization.rounding",)).confounds == ""


def test_of_many_differences_the_first_are_named_and_the_rest_counted() -> None:
    other = changed("training", to={f"k{i}": i for i in range(9)})
    text = compare(SETTINGS, other).confounds
    assert text.endswith("8 more")
    assert text.count(" against ") == 4


def test_versions_are_compared_package_by_package() -> None:
    group = Group(
        *("g", "e5m2", "", "", (), (), "", "", ()),
        side(SETTINGS, versions='{"torch": "2.10", "numpy": "2"}'),
        side(SETTINGS, versions='{"torch": "2.11", "numpy": "2", "plugin-of-the-treatment": "1"}'),
    )
    question = Question("optimizer.type", "a", "b", "final/test/accuracy", ACCURACY)
    assert audit(group, question).confounds == "torch 2.10 against 2.11"


def test_a_run_without_a_result_has_nothing_to_compare() -> None:
    """Its environment may not be written yet."""
    other = changed("training", "batch_size", to=16)
    found = compare(SETTINGS, other, status="running", device="", versions="")
    assert found == Audit()


def test_several_runs_for_one_seed_are_refused() -> None:
    runs = pd.concat([side(SETTINGS), side(SETTINGS, seeds=1)], ignore_index=True)
    group = Group(*("g", "e5m2", "", "", (), (), "", "", ()), side(SETTINGS), runs)
    question = Question("optimizer.type", "a", "b", "final/test/accuracy", ACCURACY)
    assert audit(group, question).refused == "a side has several runs for one seed"


def test_where_nothing_is_known_of_the_machine_nothing_is_said() -> None:
    found = compare(SETTINGS, SETTINGS, device="", threads=float("nan"), versions="")
    assert found == Audit()


def test_a_side_that_changed_on_the_way_is_named() -> None:
    attempts = [{"packages": {"torch": "2.10"}, "step": 0}]
    mixed = {"packages": {"torch": "2.11"}, "step": 40, "earlier": attempts}
    found = compare(SETTINGS, SETTINGS, environment=json.dumps(mixed))
    assert "treatment, in the middle of a run: torch 2.10, from step 40 on 2.11" in found.confounds


def test_batches_in_parts_for_want_of_memory_are_a_difference_of_the_sides() -> None:
    found = compare(SETTINGS, SETTINGS, environment=json.dumps({"micro_batches": 4}))
    assert found.confounds == "gradients of 1 against 4 micro-batches (--oom-accumulate)"
    mixed = {"micro_batches": 2, "step": 40, "earlier": [{"step": 0}]}
    found = compare(SETTINGS, SETTINGS, environment=json.dumps(mixed))
    assert "in the middle of a run: micro_batches 1, from step 40 on 2" in found.confounds
