"""``execution: native`` in a plan: cells without a product are skipped with the reason, ids are of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import Offer, hookimpl
from altgrad_core.planning.plan import Plan
from altgrad_core.planning.planner import plan_suite
from altgrad_core.registry.catalog import Catalog, catalog

SuiteOf = Callable[..., Any]


class Native:
    """Formats of a third party."""

    @hookimpl
    def altgrad_formats(self) -> list[Offer]:
        dtypes = {"four": "float8_e4m3fn", "five": "float8_e5m2", "steps": "int8", "odd": "int3"}
        return [Offer(name, name, "a:b", native=dtype) for name, dtype in dtypes.items()]


@pytest.fixture
def plan(suite_of: SuiteOf, stubs: Catalog) -> Callable[..., Plan]:
    plugins = stubs.merged(Catalog.from_modules(Native()))
    base = "quantization.execution=native"
    return lambda *overrides: plan_suite(suite_of("", base, *overrides), plugins)


def formats(weight: str, activation: str | None, gradient: str | None = None) -> list[str]:
    words = (weight, activation or "null", gradient or "null")
    keys = ("format", "activation_format", "gradient_format")
    return [f"quantization.{key}={word}" for key, word in zip(keys, words, strict=True)]


@pytest.mark.parametrize(
    "triple",
    [
        ("four", "four"),
        ("four", "five", "four"),
        ("steps", "steps", "steps"),
        ("five", "four", "four"),
    ],
    ids=str,
)
def test_formats_of_anyone_that_declare_a_product_have_one(
    plan: Callable[..., Plan], triple: tuple[str, ...]
) -> None:
    (cell,) = plan(*formats(*triple)).cells
    assert cell.spec is not None
    assert cell.spec.quantization.execution == "native"


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (formats("five", "five"), "five × five is refused by the library that multiplies (cuBLAS"),
        (formats("five", "four", "five"), "five × five is refused"),
        (
            formats("steps", "four"),
            "four × steps would be float8_e4m3fn × int8, for which there is",
        ),
        (
            formats("e5m2", "four"),
            "e5m2 has no native product (those with one declare float8_e4m3fn",
        ),
        (formats("odd", "odd"), "odd has no native product"),
        (formats("four", None), "so the inputs need a format, too: set activation_format"),
        (
            [*formats("four", "four"), "quantization.scaling.granularity=channel"],
            "takes one scale for each tensor, and scaling.granularity is channel",
        ),
        (
            [*formats("four", "four"), "quantization.activation_scaling={granularity: block}"],
            "and activation_scaling.granularity is block",
        ),
        (
            [*formats("four", "four"), "quantization.layers=mlp_only"],
            "bf16 has no native product",  # of rest_format
        ),
        (
            [*formats("four", "four"), "quantization.overrides=[{pattern: x, format: steps}]"],
            "four × steps would be",
        ),
    ],
    ids=str,
)
def test_a_cell_without_a_product_is_skipped_with_the_reason(
    plan: Callable[..., Plan], overrides: list[str], reason: str
) -> None:
    with pytest.raises(UserError) as caught:  # the only cell of its suite
        plan(*overrides)
    assert reason in str(caught.value)
    assert "execution: native" in str(caught.value)


def test_a_layer_that_is_left_alone_needs_no_product(plan: Callable[..., Plan]) -> None:
    alone = "quantization.overrides=[{pattern: x, format: null}]"
    rest = ["quantization.layers=mlp_only", "quantization.rest_format=null"]
    assert len(plan(*formats("four", "four"), alone, *rest).specs) == 1


def test_in_a_matrix_the_others_are_run(plan: Callable[..., Plan]) -> None:
    axis = "matrix.quantization.format=[four, five, steps, e3m4]"
    found = plan("quantization.activation_format=four", axis)
    kept = [cell.spec is not None for cell in found.cells]
    assert kept == [True, True, False, False]


def test_execution_is_an_axis_and_native_runs_have_ids_of_their_own(suite_of: SuiteOf) -> None:
    def plan(*more: str) -> Plan:
        overrides = formats("e4m3", "e4m3", "e5m2")
        base = "name: tried\ndata: {dataset: license_rules}\noptimizer: {type: adamw}\n"
        return plan_suite(suite_of("", *overrides, *more, base=base), catalog())

    both = plan("matrix.quantization.execution=[simulated, native]")
    simulated, native = both.specs
    assert simulated.axes == {"quantization.execution": "simulated"}
    assert (simulated.condition, native.condition) == ("e4m3_adamw", "e4m3_adamw_native")
    assert simulated.id == plan().specs[0].id
    assert native.id != simulated.id


def test_where_execution_follows_from_the_format_labels_say_it(
    suite_of: SuiteOf, stubs: Catalog
) -> None:
    text = """\
quantization: {activation_format: four}
zip: {quantization.format: [e5m2, four], quantization.execution: [simulated, native]}
"""
    found = plan_suite(suite_of(text), stubs.merged(Catalog.from_modules(Native())))
    assert [spec.condition for spec in found.specs] == ["e5m2_adamw", "four_adamw_native"]


def test_a_condition_that_is_native_alone_says_it_among_simulated_ones(plan_of: Any) -> None:
    native = "{format: e5m2, execution: native, activation_format: e5m2}"
    found = plan_of("include: [{quantization: {format: bf16}}, {quantization: " + native + "}]")
    assert [cell.label for cell in found.cells] == ["bf16_adamw", "e5m2_adamw_native"]
