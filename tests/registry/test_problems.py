from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import Field, PositiveInt, ValidationError, model_validator

from altgrad_core.interfaces.plugin import Settings
from altgrad_core.quantization.settings import QuantizationSettings
from altgrad_core.registry.problems import Problem, dotted, explain, meant_as_axis, nearest, unknown


class Inner(Settings):
    size: PositiveInt = 1
    mode: Literal["fast", "slow"] = "fast"


class Outer(Settings):
    inner: Inner = Inner()
    items: tuple[Inner, ...] = ()
    named: dict[str, Inner] = Field(default_factory=dict)
    free: dict[str, int] = Field(default_factory=dict)
    path: str | list[str] | None = None
    maybe: Inner | None = None
    needed: int = Field(1, description="how many")
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _ordered(self) -> Outer:
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self


def problems(data: Any, model: type[Settings] = Outer) -> list[Problem]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return explain(caught.value, model)


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        ({"iner": 1}, ("iner",), "unknown key 'iner'. Did you mean 'inner'? Allowed: inner, items"),
        ({"inner": {"sise": 1}}, ("inner", "sise"), "Did you mean 'size'? Allowed: size, mode."),
        ({"inner": {"size": 0}}, ("inner", "size"), "input should be greater than 0, got 0"),
        (
            {"inner": 3},
            ("inner",),
            "input should be a valid dictionary or instance of Inner, got 3",
        ),
        (
            {"inner": {"mode": "fats"}},
            ("inner", "mode"),
            "'fats' is not allowed. Did you mean 'fast'?",
        ),
        ({"inner": {"mode": 3}}, ("inner", "mode"), "3 is not allowed. Allowed: fast, slow."),
        ({"items": [{}, {"size": -1}]}, ("items", 1, "size"), "greater than 0, got -1"),
        ({"items": [{"x": 1}]}, ("items", 0, "x"), "unknown key 'x'. Allowed: size, mode."),
        ({"items": 3}, ("items",), "valid tuple"),
        ({"named": {"a": {"size": "b"}}}, ("named", "a", "size"), "valid integer"),
        ({"named": {"size": {"x": 1}}}, ("named", "size", "x"), "unknown key 'x'"),
        ({"free": {"a": "b"}}, ("free", "a"), "valid integer"),
        ({"path": 3}, ("path",), "valid string, got 3; or input should be a valid list, got 3"),
        ({"path": [3]}, ("path",), "valid string"),
        ({"maybe": {"size": 0}}, ("maybe", "size"), "greater than 0"),
        ({"low": 2}, (), "low must not be above high"),
        ({"needed": "x" * 100}, ("needed",), "…"),
    ],
)
def test_paths_and_messages(data: Any, path: tuple[Any, ...], message: str) -> None:
    (problem,) = problems(data)
    assert problem.path == path
    assert message in problem.message


def test_a_missing_key_says_what_it_is_for() -> None:
    class Needs(Settings):
        needed: int = Field(description="how many")
        plain: int

    assert problems({}, Needs) == [
        Problem(("needed",), "this key is required (how many)"),
        Problem(("plain",), "this key is required"),
    ]


def test_every_problem_is_told_once() -> None:
    paths = {problem.path for problem in problems({"iner": 1, "inner": {"size": 0, "mode": 1}})}
    assert paths == {("iner",), ("inner", "size"), ("inner", "mode")}


def test_nearest() -> None:
    names = ["e5m2", "e3m4", "bf16", "manifold_adamw", "adamw"]
    assert nearest("e5m3", names) == "e5m2"
    assert nearest("BF16", names) == "bf16"
    assert nearest("manifold", names) == "manifold_adamw"
    assert nearest("float8_e5m2fnuz", names) == "e5m2"
    assert nearest("my-very-own-MANIFOLD_ADAMW-variant", names) == "manifold_adamw"
    assert nearest("zzz", names) is None
    assert unknown("format", "zzz", names).startswith("unknown format 'zzz'. Allowed: e5m2, e3m4")


def test_dotted() -> None:
    assert dotted(("a", "b", 0, "c")) == "a.b[0].c"
    assert dotted(()) == ""


def test_a_list_of_right_values_where_one_belongs_is_told_from_a_wrong_list() -> None:
    settings = {
        "layers": ["all", "mlp_only"],
        "scaling": {"block_size": [16, 32]},
        "overrides": [3],
    }
    for path, meant in (
        (("layers",), True),
        (("scaling", "block_size"), True),
        (("overrides",), False),
        (("scaling", "mode"), False),
    ):
        assert meant_as_axis(QuantizationSettings, settings, path) is meant, path
    wrong = {"layers": ["all", "mlp"]}
    assert not meant_as_axis(QuantizationSettings, wrong, ("layers",))
    assert not meant_as_axis(QuantizationSettings, {"layers": []}, ("layers",))
