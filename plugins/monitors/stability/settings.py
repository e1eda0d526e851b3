"""Settings of the monitors of stability. Free of torch, since planning reads them."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from altgrad_plugins.monitors.settings import LayerSettings


class AmaxSettings(LayerSettings):
    """Settings of ``amax``."""


class OverflowSettings(LayerSettings):
    """Settings of ``overflow``."""

    interval: PositiveInt = Field(50, description="steps between measurements")
