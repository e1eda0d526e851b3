"""The suites that come with the package, planned with the plugins that come with it."""

from __future__ import annotations

import itertools

import pytest

from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite, shipped_suites

FORMATS = ["bf16", "e5m2", "e3m4", "e1m6", "e0m7", "e7m0"]
TWELVE = [f"{f}_{o}" for f, o in itertools.product(FORMATS, ["adamw", "manifold"])]


@pytest.mark.parametrize("name", sorted(shipped_suites()))
def test_every_shipped_suite_can_be_planned(name: str) -> None:
    plan = plan_suite(load_suite(name))
    assert plan.suite.name == name
    assert plan.suite.description
    assert all(cell.skip is None for cell in plan.cells)
    assert plan.suite.contrast is not None


@pytest.mark.parametrize("name", ["quickstart", "eurlex_matrix", "lm_quickstart", "eurlex_lm"])
def test_the_matrix_has_twelve_conditions_per_seed(name: str) -> None:
    plan = plan_suite(load_suite(name, ["seeds=[0, 1]"]))
    assert [cell.label for cell in plan.cells] == TWELVE * 2
    assert [cell.seed for cell in plan.cells] == [0] * 12 + [1] * 12


def test_the_full_matrix_has_the_sizes_of_distilbert() -> None:
    spec = plan_suite(load_suite("eurlex_matrix")).specs[0]
    model, training = spec.task.settings["model"], spec.training
    assert (model["hidden_dim"], model["num_layers"], model["num_heads"]) == (768, 6, 12)
    assert (model["type"], model["max_length"]) == ("distilbert", 512)
    assert model["pretrained"] == "distilbert-base-uncased"
    assert (training.batch_size, training.learning_rate) == (16, 2e-5)
    assert (training.max_steps, training.eval_interval) == (5000, 500)


def test_the_full_matrix_can_start_from_scratch() -> None:
    overrides = ["model.pretrained=null", "training.learning_rate=3e-4"]
    plan = plan_suite(load_suite("eurlex_matrix", overrides))
    assert len(plan.specs) == 12
    assert {spec.task.settings["model"]["pretrained"] for spec in plan.specs} == {None}
    assert {spec.training.learning_rate for spec in plan.specs} == {3e-4}


@pytest.mark.parametrize("name", ["lm_quickstart", "eurlex_lm"])
def test_language_models_are_compared_by_perplexity(name: str) -> None:
    plan = plan_suite(load_suite(name))
    assert plan.suite.contrast is not None
    assert plan.suite.contrast.metric == "final/test/perplexity"
    assert {spec.task.name for spec in plan.specs} == {"causal_lm"}
    (metric,) = [metric for metric in plan.specs[0].metrics if metric.primary]
    assert (metric.name, metric.direction, metric.worst) == ("perplexity", "lower", None)


def test_presets_of_layers_are_an_axis() -> None:
    overrides = ["quantization.format=e5m2", "matrix.quantization.layers=[all, mlp_only]"]
    plan = plan_suite(load_suite("lm_quickstart", overrides))
    labels = {cell.label for cell in plan.cells}
    assert {"e5m2_adamw_all", "e5m2_adamw_mlp_only"} <= labels
    assert len({spec.id for spec in plan.specs}) == 4
