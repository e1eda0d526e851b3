"""The card of ``show format``: its numbers, its width, its pictures."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from altgrad_core.format_card import format_card, number
from altgrad_plugins.formats import altgrad_formats


def drawn(fmt, details=None) -> list[str]:
    console = Console(file=io.StringIO(), width=80, no_color=True)
    console.print(format_card(fmt, details))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("offer", altgrad_formats(), ids=lambda offer: offer.name)
def test_every_card_fits_80_columns(build, offer) -> None:
    settings = {
        "exmy": {"exponent_bits": 5, "mantissa_bits": 4},
        "table": {"values": [-1, 0, 0.5, 3, "nan", "inf", 4, 100]},
    }
    fmt = build(offer.name, **settings.get(offer.name, {}))
    lines = drawn(fmt, offer.details)
    assert lines[0] == f"{offer.name}, {fmt.bits} bits"
    assert max(map(len, lines)) <= 80
    assert sum("█" in line for line in lines) >= 5


def test_the_facts_of_a_card(build) -> None:
    details = {offer.name: offer.details for offer in altgrad_formats()}["e3m4"]
    facts = {line[2:19].strip(): line[21:].strip() for line in drawn(build("e3m4"), details)[1:13]}
    assert facts["largest"] == "31"
    assert facts["smallest positive"] == "0.015625 (2^-6)"
    assert facts["smallest normal"] == "0.25 (2^-2)"
    assert facts["bias"] == "3"
    assert facts["rungs"] == "-127 to 127"
    assert facts["scale"] == "fitted to each tensor"
    assert facts["amax goes to"] == "the largest value"
    assert facts["halved scale"] == "moves no value of the grid"


def test_pictures_of_a_flat_and_of_a_logarithmic_grid(build) -> None:
    flat, log = drawn(build("e0m7")), drawn(build("e7m0"))
    # e0m7 has one gap throughout; e7m0 has one value in every binade
    assert f"{'2^-7':>10} {'█' * 63}" in flat
    assert f"{'2^0':>10} {'█' * 64}" in log


def test_number() -> None:
    assert number(0.015625) == "0.015625 (2^-6)"
    assert number(2.0**64) == "1.844674e+19 (2^64)"
    assert number(1.0) == "1"
    assert number(3.96875) == "3.96875"
