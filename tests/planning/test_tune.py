"""``training.learning_rate: auto``: what is planned before and after tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.interfaces.metric import Metric
from altgrad_core.planning.export import export_plan
from altgrad_core.planning.planner import plan_suite, plan_tuning
from altgrad_core.planning.present import totals
from altgrad_core.planning.suite import load_suite, parse_suite
from altgrad_core.planning.tune import TuneSettings, best_rate, extended, widest_step
from altgrad_core.registry.catalog import Catalog

TUNED = """
seeds: [0, 1]
training: {learning_rate: auto, max_steps: 30}
matrix: {quantization.format: [bf16, e5m2], optimizer.type: [adamw, manifold_adamw]}
tune: {learning_rates: [1e-4, 1e-3, 1e-2], seeds: [7, 8, 9]}
"""


def test_cells_wait_for_their_rate(plan_of: Any) -> None:
    plan = plan_of(TUNED)
    assert len(plan.cells) == 8
    assert all(cell.waits and cell.spec is None and cell.skip is None for cell in plan.cells)
    assert plan.tuned == ["bf16_adamw", "bf16_manifold", "e5m2_adamw", "e5m2_manifold"]
    assert "8 to run" in totals(plan)
    assert "36 tuning runs: 3 learning rates x 4 conditions x 3 seeds" in totals(plan)
    assert plan.to_json()["tune"]["seeds"] == [7, 8, 9]
    assert totals(plan).endswith(
        "neighbouring rates are a factor 10 apart; more than 2 can make a difference by itself"
    )
    fine = plan_of(TUNED.replace("[1e-4, 1e-3, 1e-2]", "[5e-4, 1e-3, 2e-3]"))
    assert "apart" not in totals(fine)


def test_the_grid_by_default_is_no_coarser_than_a_factor_of_two() -> None:
    assert widest_step(TuneSettings().learning_rates) == 2


def test_the_chosen_rates_complete_them(suite_of: Any, stubs: Catalog) -> None:
    suite = suite_of(TUNED)
    rates = {"bf16_adamw": 1e-3, "bf16_manifold": 1e-2, "e5m2_adamw": 1e-4}
    plan = plan_suite(suite, stubs, rates=rates)
    found = {c.label: c.spec.training.learning_rate if c.spec else None for c in plan.cells}
    assert found == {**rates, "e5m2_manifold": None}
    fixed = plan_suite(
        suite_of(TUNED, "training.learning_rate=1e-3", "quantization.format=bf16"), stubs
    )
    assert plan.cells[0].spec is not None
    assert fixed.cells[0].spec is not None
    assert plan.cells[0].spec.id == fixed.cells[0].spec.id, "how a rate was found is no setting"


def test_tuning_runs_are_every_condition_rate_and_tuning_seed(
    suite_of: Any, stubs: Catalog
) -> None:
    cells = plan_tuning(suite_of(TUNED), [1e-4, 1e-3, 1e-2, 0.1], stubs)
    assert len(cells) == 4 * 4 * 3
    assert {cell.stage for cell in cells} == {"tune"}
    assert {cell.seed for cell in cells} == {7, 8, 9}
    assert len({cell.spec.id for cell in cells if cell.spec}) == 48
    labels = [cell.label for cell in cells]
    assert labels[0] == "bf16_adamw_lr=0.0001"
    assert {c.spec.training.max_steps for c in cells if c.spec} == {30}
    short = suite_of(TUNED, "tune.max_steps=5")
    assert {c.spec.training.max_steps for c in plan_tuning(short, [1e-3], stubs) if c.spec} == {5}


def test_fixed_and_tuned_rates_may_stand_side_by_side(plan_of: Any) -> None:
    plan = plan_of("matrix: {training.learning_rate: [auto, 2e-5, 1e-3]}")
    assert [cell.label for cell in plan.cells] == [
        "bf16_adamw_auto",
        "bf16_adamw_learning_rate=2e-05",
        "bf16_adamw_learning_rate=0.001",
    ]
    assert [cell.waits for cell in plan.cells] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tune: {learning_rates: [1e-3]}", "at least three rates"),
        ("tune: {learning_rates: [1e-3, 1e-4, 1e-5]}", "larger than the one before"),
        ("tune: {seeds: [0, 1]}", "0 is one of the suite's seeds"),
        ("tune: {seeds: [5, 5]}", "must differ"),
        ("tune: {metric: final/test/f1_micro}", "the test split must not decide"),
        ("tune: {rates: [1]}", "'rates'"),
        ("training: {learning_rate: automatic}", "training.learning_rate"),
    ],
)
def test_bad_input(suite_of: Any, stubs: Catalog, text: str, message: str) -> None:
    with pytest.raises(UserError, match=r"s\.yaml, line") as error:
        plan_suite(suite_of(text), stubs)
    assert message in str(error.value)


def test_an_exported_condition_tunes_itself(suite_of: Any, stubs: Catalog, tmp_path: Path) -> None:
    plan = plan_suite(suite_of(TUNED), stubs)
    paths = export_plan(plan, tmp_path / "out")
    text = paths[3].read_text()
    assert paths[3].name == "e5m2_manifold.yaml"
    again = plan_suite(parse_suite(text, paths[3].name, tmp_path), stubs)
    assert again.tuned == ["e5m2_manifold"]
    one = plan_tuning(plan.suite, [1e-3], stubs)
    two = plan_tuning(again.suite, [1e-3], stubs)
    assert [c.spec.id for c in two if c.spec] == [c.spec.id for c in one[-3:] if c.spec]


def test_a_shipped_suite_can_be_tuned() -> None:
    plan = plan_suite(load_suite("quickstart", ["training.learning_rate=auto"]))
    assert len(plan.tuned) == 12


def test_the_grid_grows_in_its_own_steps() -> None:
    rates = (1e-4, 3e-4, 1e-3)
    assert extended(rates, below=True, above=False) == (3.33e-5, *rates)
    assert extended(rates, below=False, above=True) == (*rates, 3.33e-3)
    assert extended(rates, below=False, above=False) == rates


def test_the_best_of_equals_is_the_smallest_and_nan_never_wins() -> None:
    higher, lower = Metric("a", "A", "higher", 0.0), Metric("b", "B", "lower")
    assert best_rate({1e-3: 0.5, 1e-2: 0.5, 0.1: 0.4}, higher) == 1e-3
    assert best_rate({1e-3: float("nan"), 1e-2: 0.1}, higher) == 1e-2
    assert best_rate({1e-3: 2.0, 1e-2: 1.0, 0.1: float("nan")}, lower) == 1e-2
    assert best_rate({1e-3: 1.0, 1e-2: float("-inf")}, lower) == 1e-3
    assert best_rate({1e-3: float("nan")}, lower) is None
