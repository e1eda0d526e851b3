"""The plane over exponent and mantissa bits, on gains that lie on one."""

from __future__ import annotations

import pandas as pd
import pytest
from planted import make_suite, noisy

from altgrad_core.analysis.find import find
from altgrad_core.interfaces.blocks import Chart, Paragraph, Table
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.properties import benefits
from altgrad_plugins.sections.surface import surface_blocks

BITS = {"a": (2, 5), "b": (3, 4), "c": (4, 3), "d": (2, 3), "e": (5, 4), "f": (3, 6)}


def planted(noise: float, seeds: int = 5, bits: dict[str, tuple[int, int]] = BITS) -> Findings:
    facts = pd.DataFrame.from_dict(bits, "index", columns=["exponent_bits", "mantissa_bits"])
    facts = facts.assign(bits=1 + facts.sum(axis=1), grid="", uniform=False)
    gains = {fmt: 0.05 + 0.02 * e - 0.01 * m for fmt, (e, m) in bits.items()}
    suite = make_suite(noisy(gains, noise), formats=tuple(bits), seeds=range(seeds))
    return find(suite, facts)


def test_its_slopes_are_found_with_their_interval_over_seeds() -> None:
    found = planted(0.001)
    table, chart = surface_blocks(found, benefits(found))
    assert isinstance(table, Table)
    assert isinstance(chart, Chart)
    for row, truth in zip(table.rows, (0.05, 0.02, -0.01), strict=True):
        low, high = (float(end.replace("\N{MINUS SIGN}", "-")) for end in row[4].text.split(" to "))
        assert low < truth < high
        assert high - low < 0.02
    assert "least squares over 6 formats" in table.caption


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_seed_has_no_interval(seeds: int) -> None:
    found = planted(0.001, seeds)
    table, _ = surface_blocks(found, benefits(found))
    assert isinstance(table, Table)
    assert (table.rows[1][4].text == "–") == (seeds == 1)


def test_formats_of_one_width_have_none_and_too_few_are_said() -> None:
    one_width = {fmt: bits for fmt, bits in BITS.items() if sum(bits) == 7}
    found = planted(0.001, bits=one_width)
    assert surface_blocks(found, benefits(found)) == []
    found = planted(0.001, bits={fmt: BITS[fmt] for fmt in "abd"})
    (said,) = surface_blocks(found, benefits(found))
    assert isinstance(said, Paragraph)
    assert "3 formats do not determine one" in said.text
