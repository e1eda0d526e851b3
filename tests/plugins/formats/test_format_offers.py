"""What the formats offer, read without torch; settings that are refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from altgrad_plugins.formats import altgrad_formats

NAMES = ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"]
NAMES += ["bf16", "fp32", "exmy", "table"]


def test_every_format_is_offered() -> None:
    assert [offer.name for offer in altgrad_formats()] == NAMES
    for offer in altgrad_formats():
        assert "\n" not in offer.summary
        assert offer.summary


def test_offers_and_settings_do_not_import_torch() -> None:
    code = (
        "import sys; from altgrad_plugins.formats import altgrad_formats; "
        "o = {x.name: x for x in altgrad_formats()}; "
        "o['exmy'].settings(exponent_bits=3, mantissa_bits=4); "
        "o['table'].settings(values=[0, 1]); "
        "sys.exit(bool({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_details_are_facts(build) -> None:
    details = {offer.name: offer.details for offer in altgrad_formats()}
    assert details["e3m4"] == {
        "exponent bits": 3,
        "mantissa bits": 4,
        "bias": 3,
        "specials": "none",
        "largest": 31.0,
        "smallest positive": 1 / 64,
        "smallest normal": 1 / 4,
    }
    for name in NAMES[:10]:
        fmt = build(name)
        assert details[name]["largest"] == fmt.max_finite
        assert details[name]["smallest positive"] == fmt.min_positive


@pytest.mark.parametrize("name", ["e0m7", "e1m6", "e2m5", "e3m4", "e6m1", "e7m0"])
def test_special_overflow_needs_specials(build, name: str) -> None:
    with pytest.raises(ValidationError, match="special needs NaN or inf"):
        build(name, overflow="special")


def test_unknown_settings_are_refused(build) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        build("e5m2", bias=3)
    with pytest.raises(ValidationError, match="'saturate' or 'special'"):
        build("e5m2", overflow="wrap")
