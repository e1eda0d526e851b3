"""Settings of the built-in monitors. Free of torch, since planning reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from altgrad_core.interfaces.plugin import Settings

_LAYERS = Field(("*",), min_length=1, description="fnmatch patterns of the weights to watch")


class AmaxSettings(Settings):
    """Settings of ``amax``."""

    interval: PositiveInt = Field(10, description="steps between measurements")
    layers: tuple[str, ...] = _LAYERS


class FlipsSettings(Settings):
    """Settings of ``flips``."""

    interval: PositiveInt = Field(10, description="steps between measurements")
    layers: tuple[str, ...] = _LAYERS


class GradientsSettings(Settings):
    """Settings of ``gradients``."""

    interval: PositiveInt = Field(10, description="steps between measurements")
    layers: tuple[str, ...] = _LAYERS


class OverflowSettings(Settings):
    """Settings of ``overflow``."""

    interval: PositiveInt = Field(50, description="steps between measurements")
    layers: tuple[str, ...] = _LAYERS


class RankSettings(Settings):
    """Settings of ``rank``."""

    interval: PositiveInt = Field(100, description="steps between measurements")
    layers: tuple[str, ...] = _LAYERS
    of: Literal["quantized", "master"] = Field(
        "quantized", description="the matrix that the forward pass uses, or its float32 master"
    )
    collapse: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="warn when the effective rank falls below this fraction of its first value; 0: never",
    )


class ThroughputSettings(Settings):
    """Settings of ``throughput``."""

    interval: PositiveInt = Field(50, description="steps between readings")
    warmup_steps: PositiveInt = Field(
        10, description="first steps left out, after a restart too; at most half of the run"
    )
