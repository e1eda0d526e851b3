"""Settings of the monitors of capacity. Free of torch, since planning reads them."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from altgrad_plugins.monitors.settings import LayerSettings


class CodeUsageSettings(LayerSettings):
    """Settings of ``code_usage``."""

    interval: PositiveInt = Field(100, description="steps between measurements")
    collapse: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="warn when the entropy falls below this fraction of its first value; 0: never",
    )


class UniformitySettings(LayerSettings):
    """Settings of ``uniformity``."""

    interval: PositiveInt = Field(200, description="steps between measurements")
