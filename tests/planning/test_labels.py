from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from altgrad_core._axis import axis_text
from altgrad_core.planning.labels import design_axes, labels

KEYS = [
    "training.learning_rate",
    "quantization.format",
    "optimizer.type",
    "a.interval",
    "b.interval",
]
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=60),
    st.lists(st.integers(), max_size=3),
    st.fixed_dictionaries({"name": st.text(max_size=4)}, optional={"x/y": st.integers()}),
)
_ROWS = st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, _VALUES)), max_size=6)


@given(_ROWS, st.sampled_from(["bf16_adamw", "a b_ü", "x" * 30]))
def test_labels_are_unique_short_and_can_be_file_names(
    rows: list[dict[str, Any]], head: str
) -> None:
    found = labels([head] * len(rows), KEYS, rows)
    assert len({label.casefold() for label in found}) == len(rows)
    for label in found:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]*", label)
        assert len(label) < 255


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 4), min_size=1, max_size=12))
def test_design_axes_determine_all_other_keys(values: list[tuple[int, ...]]) -> None:
    keys = ["p.a", "optimizer.type", "quantization.format", "p.b"]
    rows = [dict(zip(keys, row, strict=True)) for row in values]
    kept = design_axes(keys, rows)
    seen: dict[tuple[int, ...], dict[str, int]] = {}
    for row in rows:
        assert seen.setdefault(tuple(row[key] for key in kept), row) == row
    # None of them follows from those before it, unless it never changes.
    for index, key in enumerate(kept):
        before = {tuple(row[k] for k in kept[:index]): set[int]() for row in rows}
        for row in rows:
            before[tuple(row[k] for k in kept[:index])].add(row[key])
        assert any(len(v) > 1 for v in before.values()) or len({row[key] for row in rows}) == 1


def test_format_and_optimizer_come_first() -> None:
    keys = ["training.x", "optimizer.type", "quantization.format"]
    rows = [
        {"training.x": i, "optimizer.type": i % 2, "quantization.format": i // 2} for i in range(4)
    ]
    assert design_axes(keys, rows) == ["quantization.format", "optimizer.type"]


def test_keys_that_share_their_last_word_are_written_in_full() -> None:
    rows = [{"a.interval": a, "b.interval": b} for a in (1, 2) for b in (1, 2)]
    found = labels(["x"] * 4, ["a.interval", "b.interval"], rows)
    assert found[0] == "x_a.interval=1_b.interval=1"


def test_values_in_a_few_characters() -> None:
    values = [None, True, 2e-5, 0.1 + 0.2, 3, [1, 2], {"name": "exmy", "e": 3}, {"mode": "x"}]
    assert [axis_text(value) for value in values] == [
        *("none", "true", "2e-05", "0.30000000000000004", "3", "1+2", "exmy (e=3)", "mode=x"),
    ]
