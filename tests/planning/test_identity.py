from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import altgrad_core
from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import Offer, Settings, hookimpl
from altgrad_core.planning.identity import canonical, run_id
from altgrad_core.planning.plan import Plan
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.spec import RunSpec
from altgrad_core.registry.catalog import Catalog

PlanOf = Callable[..., Plan]

TEXT = """\
optimizer: {type: manifold_adamw, cache: somewhere}
quantization: {format: {name: exmy, exponent_bits: 3}}
monitors: [flips]
"""
BASE = "name: tried\ndata: {dataset: texts, path: /somewhere}\n"


def only(plan: Plan) -> RunSpec:
    (spec,) = plan.specs
    return spec


def test_the_id_is_the_hash_of_what_determines_the_result(plan_of: PlanOf) -> None:
    spec = only(plan_of(TEXT, base=BASE))
    # Written out by hand: no field that is marked with identity: False, nothing of names and trackers.
    expected: dict[str, Any] = {
        "task": {
            "name": "texts",
            "settings": {"data": {"rows": 100}, "model": {"width": 8, "pretrained": None}},
        },
        "quantization": spec.quantization.model_dump(mode="json"),
        "optimizer": {
            "name": "manifold_adamw",
            "settings": {"weight_decay": 0.01, "site": "both"},
        },
        "training": {
            name: getattr(spec.training, name)
            for name, field in type(spec.training).model_fields.items()
            if (field.json_schema_extra or {}).get("identity") is not False  # type: ignore[union-attr]
        },
        "monitors": [{"name": "flips", "settings": {"interval": 10}}],
        "seed": 0,
        "distributions": {"stubs": "1.0", "altgrad-bench": altgrad_core.__version__},
        "fingerprint": {"rows": "hash of 100"},
    }
    text = json.dumps(expected, sort_keys=True, separators=(",", ":"))
    assert spec.id == hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "description=other",
        "trackers=[jsonl]",
        "data.path=/elsewhere",
        "optimizer.cache=other",
        "matrix.quantization.quantize_encoder=[true]",
        "training.learning_rate=0.00002",  # the default
        "quantization.format.mantissa_bits=2",
    ],
)
def test_what_does_not_determine_the_result_is_no_part_of_the_id(
    plan_of: PlanOf, override: str
) -> None:
    assert only(plan_of(TEXT, override, base=BASE)).id == only(plan_of(TEXT, base=BASE)).id


@pytest.mark.parametrize(
    "override",
    [
        "seeds=[1]",
        "data.rows=3",
        "model.width=9",
        "model.pretrained=x",
        "training.learning_rate=3e-5",
        "quantization.format.mantissa_bits=3",
        "quantization.format=e5m2",
        "quantization.scaling=delayed",
        "optimizer.site=pre",
        "monitors=[]",
        "monitors.flips.interval=11",
    ],
)
def test_what_determines_the_result_is_part_of_the_id(plan_of: PlanOf, override: str) -> None:
    assert only(plan_of(TEXT, override, base=BASE)).id != only(plan_of(TEXT, base=BASE)).id


def test_versions_and_data_are_part_of_the_id(
    plan_of: PlanOf, suite_of: Callable[..., Any], stubs: Catalog, stub_module: Any
) -> None:
    before = only(plan_of(TEXT, base=BASE)).id
    newer = Catalog(
        type(entry)(entry.kind, entry.offer, entry.distribution, "1.1")
        for entry in stubs.registered
    )
    assert only(plan_suite(suite_of(TEXT, base=BASE), newer)).id != before
    stub_module.fingerprint = lambda settings: {"rows": "another hash"}
    assert only(plan_of(TEXT, base=BASE)).id != before


def test_the_id_does_not_depend_on_where_the_suite_lies(
    plan_of: PlanOf, stubs: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = only(plan_of(TEXT, base=BASE))
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert only(plan_of(TEXT, base=BASE)).id == before.id == run_id(before, stubs)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_has_no_id(value: float) -> None:
    with pytest.raises(UserError, match="must be finite"):
        canonical({"x": value})


def test_numbers_keep_every_digit() -> None:
    assert canonical([0.1 + 0.2, 1.0, 1, True, 2e-5]) == "[0.30000000000000004,1.0,1,true,2e-05]"


class Odd(Settings):
    value: complex = 1j


class OddPlugin:
    @hookimpl
    def altgrad_monitors(self) -> list[Offer]:
        return [Offer("odd", "odd", "a:b", Odd)]


def test_a_setting_that_has_no_one_text_is_refused(
    suite_of: Callable[..., Any], stubs: Catalog
) -> None:
    plugins = stubs.merged(Catalog.from_modules(OddPlugin()))
    with pytest.raises(UserError, match="a setting of type complex cannot be part of a run's id"):
        plan_suite(suite_of("monitors: [odd]"), plugins)


def test_a_number_that_is_not_finite_is_named() -> None:
    with pytest.raises(UserError, match=r"finite: training\.rates\[1\] = inf is not"):
        canonical({"training": {"steps": 3, "rates": (1.0, math.inf)}})


def test_ids_of_many_specs_are_those_of_each_alone(plan_of: PlanOf, stubs: Catalog) -> None:
    """Parts that specs share are put into plain data once; what differs is not taken for shared."""
    plan = plan_of(
        TEXT
        + "matrix:\n  optimizer.weight_decay: [0.0, 0.1]\n  training.learning_rate: [1, 2, 3.5]\n"
        + "seeds: [0, 1]\n",
        base=BASE,
    )
    assert [spec.id for spec in plan.specs] == [run_id(spec, stubs) for spec in plan.specs]
    assert len({spec.id for spec in plan.specs}) == len(plan.specs)
