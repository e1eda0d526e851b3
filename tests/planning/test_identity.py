from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

import altgrad_core
from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import Offer, Settings, hookimpl
from altgrad_core.planning.identity import Identities, canonical, digest, run_id
from altgrad_core.planning.plan import Plan
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.spec import RunSpec
from altgrad_core.planning.suite import load_suite, shipped_suites
from altgrad_core.quantization.settings import FormatChoice
from altgrad_core.registry.catalog import Catalog, catalog

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
        "quantization": spec.quantization.model_dump(mode="json", exclude={"execution"}),
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


SHIPPED = {
    "eurlex_lm": ("b42613de662d", 12, "6430c7b4daa8"),
    "eurlex_matrix": ("df4e5017efb6", 12, "862dc70e826d"),
    "exponent_mantissa": ("b8f2ec44de50", 114, "7c890c88c8bf"),
    "lm_quickstart": ("d6feff224f4e", 12, "f4050b6a2afc"),
    "quickstart": ("4cc43a9568ca", 12, "c161b7021b29"),
    "residency": ("6d19d1b66d58", 432, "faa1c093a835"),
    "smoke": ("52ebb8094a21", 4, "b848f19377ff"),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_runs_of_shipped_suites_keep_their_ids(name: str) -> None:
    """Literal ids, whatever versions and data are here: a setting that comes later must change none."""
    fixed = {"distributions": {"altgrad-bench": "0.1.0"}, "fingerprint": {}}
    identities = Identities(catalog())
    specs = plan_suite(load_suite(str(shipped_suites()[name]))).specs
    found = [digest(identities.of(spec) | fixed) for spec in specs]
    together = hashlib.sha256(" ".join(found).encode()).hexdigest()[:12]
    assert (found[0], len(found), together) == SHIPPED[name]


class Grown(Settings):
    old: int = 1
    added: float = Field(0.0, json_schema_extra={"identity": "unless default"})
    format: FormatChoice = Field(
        FormatChoice(name="exmy", settings={"exponent_bits": 4}),
        json_schema_extra={"identity": "unless default"},
    )


class Mistyped(Settings):
    added: int = Field(0, json_schema_extra={"identity": "unless_default"})


class WithoutDefault(Settings):
    added: int = Field(json_schema_extra={"identity": "unless default"})


def offered(settings: type[Settings]) -> Catalog:
    class Plugin:
        @hookimpl
        def altgrad_monitors(self) -> list[Offer]:
            return [Offer("grown", "grown", "a:b", settings)]

    return Catalog.from_modules(Plugin())


def test_a_setting_that_was_added_is_part_of_the_id_only_where_it_is_used(
    suite_of: Callable[..., Any], stubs: Catalog
) -> None:
    def identity(settings: str) -> dict[str, Any]:
        plugins = stubs.merged(offered(Grown))
        plan = plan_suite(suite_of("monitors: [{grown: {" + settings + "}}]"), plugins)
        (monitor,) = Identities(plugins).of(only(plan))["monitors"]
        return dict(monitor["settings"])

    assert identity("") == identity("added: 0.0") == identity("added: 0") == {"old": 1}
    assert identity("added: 0.5") == {"old": 1, "added": 0.5}
    # written out or not: what is compared is what a format resolves to
    assert identity("format: {name: exmy, settings: {exponent_bits: 4, mantissa_bits: 2}}") == {
        "old": 1
    }
    assert set(identity("format: {name: e5m2}")) == {"old", "format"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Mistyped, "'unless_default', where False and 'unless default' mean something"),
        (WithoutDefault, "'unless default' and has no default"),
    ],
)
def test_a_mark_that_means_nothing_is_refused(settings: type[Settings], message: str) -> None:
    (broken,) = offered(settings).broken
    assert f"{settings.__name__}, of which added is marked identity: {message}" in broken.error
