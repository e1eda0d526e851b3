"""Settings of the monitors of rank. Free of torch, since planning reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from altgrad_plugins.monitors.settings import LayerSettings


class RankSettings(LayerSettings):
    """Settings of ``rank``."""

    interval: PositiveInt = Field(100, description="steps between measurements")
    of: Literal["quantized", "master"] = Field(
        "quantized", description="the matrix that the forward pass uses, or its float32 master"
    )
    collapse: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="warn when the effective rank falls below this fraction of its first value; 0: never",
    )
