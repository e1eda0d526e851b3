"""Metrics are the task's: third-party tasks with one metric of their own, from suite to findings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.execution.plan_file import plan_of, write_plan
from altgrad_core.interfaces.metric import Metric, declared, shared
from altgrad_core.interfaces.plugin import NoSettings, Offer, hookimpl
from altgrad_core.planning.metrics import named
from altgrad_core.planning.plan import Plan
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.spec_file import dump_spec, load_spec
from altgrad_core.registry.catalog import Catalog
from altgrad_core.results.sources import read_one

ACCURACY = (Metric("accuracy", "Accuracy", "higher", 0.0, primary=True),)
PERPLEXITY = (Metric("perplexity", "Perplexity", "lower", primary=True, curve=True),)
MATRIX = """
matrix: {optimizer.type: [adamw, manifold_adamw]}
contrast: {baseline: adamw, treatment: manifold_adamw%s}
"""


class Strangers:
    """Two tasks of a third party that know nothing of F1."""

    @hookimpl
    def altgrad_tasks(self) -> list[Offer]:
        return [
            Offer("words", "a language model", "a:b", NoSettings, metrics=PERPLEXITY),
            Offer("images", "a classifier", "a:b", NoSettings, metrics=ACCURACY),
            Offer("speech", "another direction", "a:b", metrics=(_reversed(ACCURACY[0]),)),
        ]


def _reversed(metric: Metric) -> Metric:
    return Metric(metric.name, metric.label, "lower", None, metric.primary)


@pytest.fixture
def plan_words(suite_of: Any, stubs: Catalog) -> Any:
    def make(text: str = MATRIX % "", *overrides: str) -> Plan:
        overrides = ("data.dataset=words", *overrides)
        catalog = stubs.merged(Catalog.from_modules(Strangers(), distribution="strangers"))
        return plan_suite(suite_of(text, *overrides), catalog)

    return make


def test_the_primary_metric_decides_unless_the_suite_says_otherwise(plan_words: Any) -> None:
    plan = plan_words()
    assert plan.suite.contrast.metric == "final/test/perplexity"
    assert plan.metrics == PERPLEXITY
    tuned = plan_words(MATRIX % "" + "training: {learning_rate: auto}")
    assert tuned.suite.tune.metric == "final/validation/perplexity"
    images = plan_words(MATRIX % "", "data.dataset=images")
    assert images.suite.contrast.metric == "final/test/accuracy"
    speed = plan_words(MATRIX % ", metric: throughput/all/samples_per_second@last")
    assert speed.suite.contrast.metric == "throughput/all/samples_per_second@last"


@pytest.mark.parametrize("given", ["perplexity", "final/test/perplexity"])
def test_a_bare_name_means_the_final_value(plan_words: Any, given: str) -> None:
    assert (
        plan_words(MATRIX % f", metric: {given}").suite.contrast.metric == "final/test/perplexity"
    )


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        (
            MATRIX % ", metric: final/test/perplexty",
            (),
            r"s\.yaml, line 6: contrast\.metric: unknown metric 'final/test/perplexty'\. "
            r"Did you mean 'final/test/perplexity'\?",
        ),
        (
            MATRIX % "",
            ("contrast.metric=perplexty",),
            "--set .*Did you mean 'final/test/perplexity'",
        ),
        (
            MATRIX % ", metric: final/test/f1_micro_tuned",
            (),
            "Allowed: final/test/perplexity, train",
        ),
        (MATRIX % ", metric: final/train/perplexity", (), "unknown metric"),
        (MATRIX % ", metric: validation/all/perplexity", (), "unknown metric"),
        (
            "training: {learning_rate: auto}\ntune: {metric: final/validation/perplexit}",
            (),
            r"line 5: tune\.metric: .*Did you mean 'final/validation/perplexity'",
        ),
        ("tune: {metric: f1_micor}", (), r"tune\.metric: unknown metric 'f1_micor'"),
    ],
)
def test_an_unknown_metric_is_refused_while_planning(
    plan_words: Any, text: str, override: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan_words(text, *override)


def test_tasks_without_a_metric_in_common_are_not_compared_by_one(plan_words: Any) -> None:
    both = MATRIX.replace("matrix: {", "matrix: {data.dataset: [words, images], ") % "%s"
    with pytest.raises(UserError, match=r"contrast\.metric: .*no primary metric in common"):
        plan_words(both % "", "data.dataset=[words, images]")
    with pytest.raises(UserError, match="declare the metric 'accuracy' differently"):
        plan_words(both % "", "data.dataset=[speech, images]")


def test_shared_metrics_are_primary_where_they_are_for_every_task() -> None:
    loss = Metric("loss", "Loss", "lower")
    found = shared({"a": (*ACCURACY, loss), "b": (loss, *ACCURACY), "c": (loss, *ACCURACY)})
    assert found == (*ACCURACY, loss)
    main = Metric("loss", "Loss", "lower", primary=True)
    plain = Metric("accuracy", "Accuracy", "higher", 0.0)
    found = shared({"a": (*ACCURACY, loss), "b": (main, plain)})
    assert [metric.primary for metric in found] == [False, False]
    assert named("loss", found, "test") == "final/test/loss"


def test_columns_and_curves_are_looked_up_by_their_names() -> None:
    for column in ("final/test/perplexity", "validation/all/perplexity"):
        assert declared(column, PERPLEXITY) == PERPLEXITY[0]
    loss = declared("train/all/loss@last", PERPLEXITY)
    assert loss is not None
    assert loss.sign == -1
    for column in ("final/test/loss", "rank/all/stable_rank@last", "perplexity", "final/test/"):
        assert declared(column, PERPLEXITY) is None


def test_the_declaration_is_stored_with_the_plan_and_with_each_run(
    plan_words: Any, tmp_path: Path
) -> None:
    plan = plan_words()
    write_plan(tmp_path / "suite", plan_of(tmp_path / "suite", plan.suite, plan.cells, "command"))
    stored = read_one(tmp_path / "suite")
    assert stored.metrics == PERPLEXITY
    assert stored.plan is not None
    assert stored.plan.contrast is not None
    assert stored.plan.contrast.metric == "final/test/perplexity"
    file = tmp_path / "spec.yaml"
    file.write_text(dump_spec(plan.specs[0]))
    assert load_spec(file).metrics == PERPLEXITY
    assert plan.to_json()["metrics"][0]["direction"] == "lower"


def test_no_metric_enters_the_id_of_a_run(plan_words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [spec.id for spec in plan_words().specs]
    changed = (Metric("perplexity", "Perplexity of words", "lower", primary=True),)
    monkeypatch.setitem(globals(), "PERPLEXITY", changed)
    plan = plan_words()
    assert plan.metrics == changed
    assert [spec.id for spec in plan.specs] == before
