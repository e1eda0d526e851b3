"""The schema of suite files: what the planner takes it takes, and common mistakes it underlines."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from typing import Any

import jsonschema
import pytest

from altgrad_core.errors import UserError
from altgrad_core.planning.document import parse
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.schema import suite_schema
from altgrad_core.planning.suite import load_suite, shipped_suites
from altgrad_core.registry.catalog import Catalog, catalog

GOOD: dict[str, Any] = {
    "name": "mine",
    "seeds": [0, 1],
    "data": {"dataset": "license_rules"},
    "training": {"learning_rate": "auto", "max_steps": 10},
    "quantization": {
        "format": {"name": "exmy", "exponent_bits": 3, "mantissa_bits": 2},
        "overrides": [{"pattern": "*.out", "format": None}],
    },
    "optimizer": {"type": "manifold_adamw", "site": "both", "adamw": {"weight_decay": 0.1}},
    "monitors": ["all", {"flips": {"interval": 5}}],
    "matrix": {"quantization.format": ["e5m2", "bf16"], "optimizer.type": ["adamw"]},
    "contrast": {"axis": "optimizer.type", "baseline": "adamw", "treatment": "manifold_adamw"},
}


@pytest.fixture(scope="module")
def judge() -> Any:
    schema = suite_schema(catalog())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", shipped_suites())
def test_shipped_suites_pass(judge: Any, name: str) -> None:
    path = shipped_suites()[name]
    judge.validate(parse(path.read_text(), str(path), path.parent).data)


def test_the_schema_beside_the_shipped_suites_is_up_to_date() -> None:
    ours = [one for one in catalog().registered if one.distribution == "altgrad-bench"]
    file = shipped_suites()["smoke"].with_name("schema.json")
    told = "where no other plugins are installed: altgrad-bench schema > suites/schema.json"
    assert json.loads(file.read_text()) == suite_schema(Catalog(ours)), told


@pytest.mark.parametrize("name", shipped_suites())
def test_an_editor_finds_the_schema_of_a_shipped_suite(name: str) -> None:
    path = shipped_suites()[name]
    first = path.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert path.with_name(first.partition("=")[2]).is_file()


def test_what_a_suite_may_say_passes(judge: Any) -> None:
    judge.validate(GOOD)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("quantization", "scaling"), "delayed"),
        (("quantization", "scaling"), {"mode": "delayed", "history": 4}),
        (("optimizer", "borrowed_format"), "e5m2"),
        (
            ("optimizer", "borrowed_format"),
            {"name": "exmy", "exponent_bits": 3, "mantissa_bits": 2},
        ),
        (("optimizer", "borrowed_format"), {"name": "exmy", "settings": {"exponent_bits": 3}}),
        (("monitors",), [{"mantissa_shift": {"on_stall": ["e5m2", "e4m3"]}}]),
    ],
)
def test_short_forms_pass(judge: Any, place: tuple[str, ...], value: Any) -> None:
    suite = deepcopy(GOOD)
    here = suite
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = value
    judge.validate(suite)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("quantization", "scaling"), "delay"),
        (("optimizer", "borrowed_format"), "e9m9"),
        (("optimizer", "borrowed_format"), {"name": "exmy", "exponents": 3}),
        (("name",), "a/b"),
        (("name",), "n" * 101),
        (("training", "max_steps"), True),
        (("quantization", "scaling"), {"headroom": True}),
        (("trainings",), {}),
        (("training", "max_stepps"), 3),
        (("training", "learning_rate"), "fast"),
        (("training", "batch_size"), -1),
        (("quantization", "format"), "e9m9"),
        (("quantization", "format"), {"name": "exmy", "exponents": 3}),
        (("quantization", "residency"), "gird"),
        (("optimizer", "type"), "adam"),
        (("optimizer", "siet"), "both"),
        (("optimizer", "adamw"), {"site": "both"}),
        (("monitors",), ["flisp"]),
        (("monitors",), {"flips": {"every": 3}}),
        (("matrix",), {"quantisation.format": ["e5m2"]}),
        (("matrix",), {"quantization.format": ["e9m9"]}),
        (("matrix",), {"quantization.format": "e5m2"}),
        (("contrast", "treatmend"), "x"),
        (("seeds",), [0, 0]),
    ],
)
def test_mistakes_do_not(judge: Any, place: tuple[str, ...], value: Any) -> None:
    suite = deepcopy(GOOD)
    here = suite
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = value
    assert list(judge.iter_errors(suite))


@pytest.mark.parametrize(
    "setting",
    [
        "training.max_steps=true",
        "quantization.scaling.headroom=true",
        "optimizer.weight_decay=false",
    ],
)
def test_the_planner_takes_true_for_no_number_either(setting: str) -> None:
    with pytest.raises(UserError, match="a number belongs here, not "):
        plan_suite(load_suite("smoke", [setting]))


def test_the_command_prints_it_without_torch() -> None:
    code = (
        "import sys; from altgrad_core.cli import main\n"
        "sys.argv = ['altgrad-bench', 'schema']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == suite_schema(catalog())
