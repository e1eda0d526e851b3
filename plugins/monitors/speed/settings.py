"""Settings of the monitors of speed. Free of torch, since planning reads them."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from altgrad_core.interfaces.plugin import Settings


class ThroughputSettings(Settings):
    """Settings of ``throughput``."""

    interval: PositiveInt = Field(50, description="steps between readings")
    warmup_steps: PositiveInt = Field(
        10, description="first steps left out, after a restart too; at most half of the run"
    )
