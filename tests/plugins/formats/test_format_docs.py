"""What docs/formats.md says is true: its example format works, and its table of the ladder is right."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from altgrad_core.testing.formats import check_format
from altgrad_plugins.formats.ladder import LADDER

PAGE = (Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")


def test_the_example_is_a_format() -> None:
    (source,) = re.findall(r"```python\n(import torch\n.*?)```", PAGE, re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 15
    names: dict[str, type] = {}
    exec(source, names)
    check_format(names["E2M1"]("e2m1", None))


def number(text: str) -> float | None:
    if text == "–":
        return None
    base, _, exponent = text.partition("^")
    return float(Fraction(base) ** int(exponent)) if exponent else float(Fraction(base))


def test_the_table_of_the_ladder() -> None:
    rows = re.findall(r"^\| `(e\dm\d)` \|(.*)\|$", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == list(LADDER)
    for name, rest in rows:
        cells = [cell.strip() for cell in rest.split("|")]
        facts = LADDER[name].facts()
        keys = ("exponent bits", "mantissa bits", "bias")
        assert [number(cell) for cell in cells[:3]] == [facts[key] for key in keys]
        keys = ("largest", "smallest positive", "smallest normal")
        assert [number(cell) for cell in cells[4:]] == [facts[key] for key in keys]
