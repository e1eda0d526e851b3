"""Settings of the monitors of curvature. Free of torch, since planning reads them."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveInt

from altgrad_plugins.monitors.settings import LayerSettings


class CurvatureSettings(LayerSettings):
    """Settings of ``curvature``."""

    interval: PositiveInt = Field(
        20_000, description="steps between measurements, each of which costs tens of steps"
    )
    samples: PositiveInt = Field(8, description="examples of the fixed probe batch")
    eigenvalues: NonNegativeInt = Field(2, le=50, description="how many of the largest")
    probes: int = Field(8, ge=2, description="random vectors for trace and diagonal")
    tolerance: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="relative error of the eigenvalues at most; most have far less",
    )
    restarts: PositiveInt = Field(
        10, description="of the Lanczos method at most; eigenvalues not found by then are NaN"
    )
    seed: NonNegativeInt = Field(
        0, description="of the random vectors, the same at each measurement and in every run"
    )
