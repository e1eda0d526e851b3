"""YAML that means something else, that cannot be read, or that grows without end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from altgrad_core.errors import UserError
from altgrad_core.planning.document import parse
from altgrad_core.planning.suite import load_suite, parse_suite


def _levels(text: str) -> str:
    return "\n".join(
        [
            "a0: &a0 {k: [x, x]}",
            *(f"a{i}: &a{i} {{k{i}: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 10)),
            text,
        ]
    )


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("010", "without the zero"),
        ("0o10", "without the zero"),
        ("-007", "without the zero"),
        ("0x1F", "decimal"),
        ("0b11", "decimal"),
        ("1:30", "decimal"),
        ("12:30:45", "decimal"),
        ("1_000", "without '_'"),
        ("1_0.5", "without '_'"),
        *((word, "true or false") for word in ("yes", "No", "on", "OFF")),
    ],
)
def test_what_readers_of_yaml_disagree_on_is_refused(text: str, hint: str) -> None:
    with pytest.raises(UserError, match=r"^s, line 2: .*means different things") as refused:
        parse(f"b: 1\na: {text}", "s", Path())
    assert hint in str(refused.value)
    assert "quotes" in str(refused.value)
    assert parse(f"a: '{text}'", "s", Path()).data == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".5e3", 500.0),
        ("0", 0),
        ("0.5", 0.5),
        ("0e3", 0.0),
        ("-3", -3),
        ("true", True),
        ("null", None),
        ("2024-01-01", "2024-01-01"),
        ("snake_case", "snake_case"),
    ],
)
def test_what_everyone_agrees_on_is_read(text: str, value: Any) -> None:
    found = parse(f"a: {text}", "s", Path()).data["a"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!int x", "line 1: 'x' cannot be read as a whole number"),
        ("a: " + "9" * 5000, "cannot be read as a whole number"),
        ("a: 9223372036854775808", "too large for a whole number of 64 bits"),
        ('a: "x\\0y"', "with a NUL"),
        ("a\0b", "not valid YAML"),
        ("a: " + "[" * 60 + "]" * 60, "more than 50 levels deep"),
        ("? [1]\n: 2", "a key must be text"),
        ("a: !!binary aGk=", "has no meaning here"),
    ],
)
def test_what_cannot_be_read_says_so(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(text, "s", Path())


def test_what_would_grow_without_end_is_refused_before_it_does(tmp_path: Path) -> None:
    began = time.process_time()
    with pytest.raises(UserError, match="more than 20,000 parts"):
        parse(_levels(""), "s", Path())
    axes = "".join(f"  training.a{i}: {list(range(300))}\n" for i in range(3))
    with pytest.raises(UserError, match="make 27,000,000 cells, and a suite may have at most"):
        parse_suite(f"name: t\nmatrix:\n{axes}", "s", tmp_path)
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize("name", ["2024", "1e3", "true"])
def test_a_name_that_is_no_text_wants_quotes(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 1: name: .*put it in quotes"):
        parse_suite(f"name: {name}\n", "s", tmp_path)


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "~nosuchuser/x.yaml"])
def test_paths_that_cannot_be(path: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        load_suite(path)
    quoted = path.replace("\0", "\\0")
    suite = f'name: t\ndata: {{dataset: eurlex, path: "{quoted}"}}\noptimizer: adamw\n'
    with pytest.raises(UserError):
        list(parse_suite(suite, "s", tmp_path).drafts())


_PIECES = st.sampled_from(
    [
        *"[]{}:,-&*!?|>%@`'\"#\n\t ~=a0",
        *("1e9", "name: ", "matrix:\n  ", "optimizer.type: ", "&a ", "*a", "<<: ", "!!int "),
        *("\\0", "training: ", "quantization.format: ", "seeds: ", "- "),
    ]
)
_TEXTS = st.one_of(st.text(max_size=60), st.lists(_PIECES, max_size=25).map("".join))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=_TEXTS, override=st.one_of(st.none(), _TEXTS))
def test_nothing_but_a_user_error_comes_out(text: str, override: str | None) -> None:
    overrides = [] if override is None else [override, f"training.max_steps={override}"]
    try:
        suite = parse_suite(text, "s.yaml", Path("/nowhere"), overrides)
        list(suite.drafts())
    except UserError:
        pass
