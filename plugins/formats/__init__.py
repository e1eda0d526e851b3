"""Built-in formats: the ladder e0m7 to e7m0, ``bf16``, ``fp32``, ``exmy`` and ``table``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from altgrad_core.interfaces.plugin import Offer, Settings, hookimpl
from altgrad_plugins.formats.ladder import BF16, LADDER, NATIVE
from altgrad_plugins.formats.settings import (
    ExMySettings,
    OverflowSettings,
    SaturatingSettings,
    TableSettings,
)

_FP32_FACTS: Mapping[str, Any] = {
    "exponent bits": 8,
    "mantissa bits": 23,
    "bias": 127,
    "specials": "inf and NaN in the highest exponent",
    "largest": (2 - 2.0**-23) * 2.0**127,
    "smallest positive": 2.0**-149,
    "smallest normal": 2.0**-126,
}


def _ladder_offer(name: str) -> Offer:
    layout = LADDER[name]
    settings: type[Settings] = SaturatingSettings if layout.specials == "none" else OverflowSettings
    return Offer(
        name=name,
        summary=f"8 bits, {layout.exponent_bits} of them exponent; largest {layout.largest:g}",
        target="altgrad_plugins.formats.exmy:build_ladder",
        settings=settings,
        details=layout.facts(),
        native=NATIVE.get(name, ""),
    )


@hookimpl
def altgrad_formats() -> list[Offer]:
    """Every built-in format."""
    return [
        *map(_ladder_offer, LADDER),
        Offer(
            name="bf16",
            summary="bfloat16, the 16-bit baseline, used at scale 1",
            target="altgrad_plugins.formats.wide:build_bf16",
            settings=OverflowSettings,
            details=BF16.facts(),
            native="bfloat16",
        ),
        Offer(
            name="fp32",
            summary="float32: no rounding, used at scale 1",
            target="altgrad_plugins.formats.wide:build_fp32",
            settings=OverflowSettings,
            details=_FP32_FACTS,
            native="float32",
        ),
        Offer(
            name="exmy",
            summary="any exponent bits, mantissa bits, bias and specials, 2 to 16 bits in all",
            target="altgrad_plugins.formats.exmy:build_exmy",
            settings=ExMySettings,
            label="exmy-e{exponent_bits}m{mantissa_bits}",
            example={"exponent_bits": 3, "mantissa_bits": 6, "specials": "ieee"},
        ),
        Offer(
            name="table",
            summary="a format given only by the value of each code, as a list or a file",
            target="altgrad_plugins.formats.table:build",
            settings=TableSettings,
            example={"values": [0, 0.5, 0.5, 3, "nan", "inf", -4, -0.0]},
        ),
    ]
