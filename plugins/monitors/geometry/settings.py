"""Settings of the monitors of geometry. Free of torch, since planning reads them."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from altgrad_plugins.monitors.settings import LayerSettings


class FlipsSettings(LayerSettings):
    """Settings of ``flips``."""


class StiffnessSettings(LayerSettings):
    """Settings of ``stiffness``."""

    interval: PositiveInt = Field(200, description="steps between measurements")
    binades: int = Field(
        16, ge=1, le=16, description="bins of the histogram; the last one takes what lies below"
    )
    spearman: bool = Field(
        False,
        description="also the rank correlation of gradient and stiffness, which needs sorting",
    )


class DistanceSettings(LayerSettings):
    """Settings of ``distance``."""

    interval: PositiveInt = Field(100, description="steps between measurements")


class MotionSettings(LayerSettings):
    """Settings of ``motion``."""

    interval: PositiveInt = Field(100, description="steps between measurements")


class ReversalsSettings(LayerSettings):
    """Settings of ``reversals``."""

    interval: PositiveInt = Field(
        100, description="steps between measurements; a flip in between is not seen"
    )


class DriftSettings(LayerSettings):
    """Settings of ``drift``."""

    interval: PositiveInt = Field(100, description="steps between measurements")


class UpdatesSettings(LayerSettings):
    """Settings of ``updates``."""

    interval: PositiveInt = Field(100, description="steps between measurements")
