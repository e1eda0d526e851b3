from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from altgrad_core.errors import UserError
from altgrad_core.planning.document import Document, parse
from altgrad_core.planning.spec_file import dump_yaml

HERE = Path()


def read(text: str) -> Document:
    return parse(text, "s.yaml", HERE)


_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(_CHARACTERS, max_size=8)
)
_ODD_WORDS = st.sampled_from(["1e5", "-2.5E3", "1e-5", "2024-01-01", "yes", "0x1", "1_0", ".5e1"])
_DATA = st.recursive(
    _SCALARS | _ODD_WORDS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(_CHARACTERS, max_size=6), inner)
    ),
    max_leaves=12,
)


@given(_DATA)
def test_what_is_dumped_is_read_back_and_so_it_is_by_plain_yaml(data: Any) -> None:
    text = dump_yaml(data)
    assert repr(read(text).data) == repr(data)  # repr: 1 is not 1.0 is not True
    assert repr(yaml.safe_load(text)) == repr(data)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("1E3", 1e3),
        ("-1.5e5", -1.5e5),
        (".5e1", 5.0),
        ("3.e2", 300.0),
        ("+1e0", 1.0),
    ],
)
def test_exponents_are_numbers(text: str, value: float) -> None:
    assert read(f"x: {text}").data == {"x": value}
    assert isinstance(read(f"x: {text}").data["x"], float)


@pytest.mark.parametrize("text", ["e5m2", "e0m7", "1e", "e5", "2e-5x", "2024-01-01", "1e5-3"])
def test_words_stay_words(text: str) -> None:
    assert read(f"x: {text}").data == {"x": text}


def test_every_part_knows_its_line() -> None:
    document = read("a: 1\nb:\n  c:\n    - 10\n    -\n      d: 2\n  e: {f: 3}\n")
    expected = {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 4,
        ("b", "c", 1): 6,
        ("b", "c", 1, "d"): 6,
        ("b", "e", "f"): 7,
    }
    for path, line in expected.items():
        assert document.where(path) == f"s.yaml, line {line}"
    assert document.where(("b", "c", 1, "missing", 0)) == "s.yaml, line 6"
    piece = document["b"]["c"]
    assert piece.where((1, "d")) == "s.yaml, line 6"
    assert [item.data for item in piece.elements()] == [10, {"d": 2}]


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' is given twice, first in line 1"),
        ("a:\n  b: 1\n  b: 2\n", 3, "'b' is given twice, first in line 2"),
        ("a: [1\nb: 2\n", 2, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
        ("x: 1\n3: 4\n", 2, "the key 3 is not text"),
        ("x: 1\nyes: 4\n", 2, "'yes' means different"),
        ("\nx: &a [*a]\n", 2, "contains itself"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", 1, "the YAML tag .*getcwd has no meaning"),
        ("a: !!python/name:os.getcwd x\n", 1, "not valid YAML"),
        ("a: !!set {b}\n", 1, "the YAML tag .*set has no meaning"),
    ],
)
def test_malformed_text_is_refused_with_its_line(text: str, line: int, word: str) -> None:
    with pytest.raises(UserError, match=f"^s.yaml, line {line}: .*{word}"):
        read(text)


def test_merge_keys_fill_in_and_are_no_duplicates() -> None:
    text = "base: &b {x: 1, y: 2}\nchild:\n  <<: *b\n  y: 3\n"
    assert read(text).data == {"base": {"x": 1, "y": 2}, "child": {"x": 1, "y": 3}}


def test_an_empty_file_has_no_data() -> None:
    assert read("# nothing\n").data is None
