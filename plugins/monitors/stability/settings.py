"""Settings of the monitors of stability. Free of torch, since planning reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from altgrad_core.interfaces.plugin import Settings
from altgrad_plugins.monitors.settings import LayerSettings

Percent = Annotated[float, Field(ge=0, le=100)]


class AmaxSettings(LayerSettings):
    """Settings of ``amax``."""

    interval: PositiveInt = Field(50, description="steps between measurements")


class OverflowSettings(LayerSettings):
    """Settings of ``overflow``."""

    interval: PositiveInt = Field(100, description="steps between measurements")
    overflow_rate: float | None = Field(
        0.001, ge=0, le=1, description="an event where more of a tensor overflows; 0 or null: never"
    )
    underflow_rate: float | None = Field(
        0.5, ge=0, le=1, description="an event where more of a tensor underflows; 0 or null: never"
    )


class NonfiniteSettings(Settings):
    """Settings of ``nonfinite``. It looks at every step, and reads at its interval."""

    interval: PositiveInt = Field(50, description="steps between reports")
    outputs: Literal["quantized", "all"] = Field(
        "quantized", description="look at the outputs of quantised layers, or of all modules"
    )
    stop: bool = Field(False, description="end the run when it stays non-finite")
    patience: NonNegativeInt = Field(
        3, description="stop: non-finite steps in a row that may follow the first"
    )


class RangeSettings(LayerSettings):
    """Settings of ``range``."""

    interval: PositiveInt = Field(200, description="steps between measurements")
    half_life: float = Field(
        200.0, gt=0, description="steps after which an amax counts half in the moving average"
    )
    percentiles: tuple[Percent, ...] = Field(
        (0.1, 1.0, 50.0, 99.0, 99.9), description="of the magnitudes of the non-zero elements"
    )
    samples: PositiveInt = Field(
        4096, description="elements of each tensor that percentiles are taken of, at most"
    )


class StallsSettings(LayerSettings):
    """Settings of ``stalls``."""

    interval: PositiveInt = Field(100, description="steps between measurements")
    threshold: float | None = Field(
        0.99,
        ge=0,
        lt=1,
        description="an event where more updates than that stall; 0 or null: never",
    )
    patience: PositiveInt = Field(3, description="measurements in a row above the threshold")
    masters: bool = Field(
        False, description="events for master weights, too, in which stalls do no harm"
    )
