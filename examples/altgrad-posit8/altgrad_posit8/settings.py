"""What can be set. Free of torch, since planning reads it."""

from __future__ import annotations

from pydantic import Field

from altgrad_core.interfaces import Settings


class Posit8Settings(Settings):
    """Which of the posits of 8 bits."""

    es: int = Field(1, ge=0, le=2, description="exponent bits; the standard of 2022 has 2")


class RungSGDSettings(Settings):
    """See :mod:`altgrad_posit8.rung_sgd`."""

    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="how much of the past stays")
    off_grid: float = Field(
        2.0**-7, gt=0.0, description="what counts as a rung of parameters that are on no grid"
    )
