"""Settings of the monitors that act. Free of torch, since planning reads them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator

from altgrad_core.quantization.settings import FormatChoice, as_format_choice
from altgrad_plugins.monitors.settings import LayerSettings


class GradientClipSettings(LayerSettings):
    """Settings of ``gradient_clip``. It clips in every step, and reports at its interval."""

    margin: float = Field(
        1.0, description="binades that the median keeps above the smallest positive grid value"
    )
    samples: PositiveInt = Field(
        4096, description="elements of each gradient that the median is taken of, at most"
    )


class MantissaShiftSettings(LayerSettings):
    """Settings of ``mantissa_shift``. It looks at gradients in every step, at stalls at its interval."""

    on_stall: tuple[FormatChoice, ...] = Field(
        tuple(FormatChoice(name=name) for name in ("e5m2", "e4m3", "e3m4", "e2m5")),
        description="formats to move along when updates stall; empty: never",
    )
    on_nan: tuple[FormatChoice, ...] = Field(
        tuple(FormatChoice(name=name) for name in ("e2m5", "e3m4", "e4m3", "e5m2")),
        description="formats to move along when gradients are NaN or inf; empty: never, nor skip",
    )
    scope: Literal["layer", "model"] = Field(
        "layer", description="what is judged and moved at once: each layer, or all of them"
    )
    patience: PositiveInt = Field(
        3, description="steps with broken gradients, or measurements with stalls, in a row"
    )
    threshold: float = Field(
        0.99, ge=0, lt=1, description="share of stalled updates that counts as a stall"
    )
    masters: bool = Field(
        False, description="judge the stalls of master weights, too, in which they do no harm"
    )
    most: PositiveInt = Field(8, description="moves of one layer in a run, at most")

    @field_validator("on_stall", "on_nan", mode="before")
    @classmethod
    def _formats(cls, chain: Any) -> Any:
        return [as_format_choice(e) for e in chain] if isinstance(chain, list | tuple) else chain

    @field_validator("on_stall", "on_nan")
    @classmethod
    def _chain(cls, chain: tuple[FormatChoice, ...]) -> tuple[FormatChoice, ...]:
        if len(chain) == 1:
            raise ValueError("a chain of one format leads nowhere: name two or more, or none")
        if any(entry in chain[:index] for index, entry in enumerate(chain)):
            raise ValueError("a chain has each format once, or the next one would be ambiguous")
        return chain
