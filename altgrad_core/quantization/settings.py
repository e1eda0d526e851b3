"""The ``quantization`` section of a suite. Free of torch, since planning reads it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator

from altgrad_core.interfaces.plugin import Settings


class FormatChoice(Settings):
    """A format by name with its settings. In a suite, a bare name (``e5m2``) or ``{name: exmy, exponent_bits: 3}``."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


def as_format_choice(value: Any) -> Any:
    """Accept ``e5m2`` and ``{name: exmy, exponent_bits: 3}`` for a :class:`FormatChoice`."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and "settings" not in value and "name" in value:
        return {"name": value["name"], "settings": {k: v for k, v in value.items() if k != "name"}}
    return value


class ScalingSettings(Settings):
    """Where a tensor's scale comes from."""

    mode: Literal["current", "delayed"] = Field(
        "current", description="amax of this step, or the largest of the last `history` steps"
    )
    history: PositiveInt = Field(16, description="steps of amax kept in delayed mode")
    power_of_two: bool = Field(
        True, description="round the scale up to a power of two, so that scaling is exact"
    )


class Override(Settings):
    """Another format (or none) for the layers whose module name matches ``pattern`` (fnmatch). The last match wins."""

    pattern: str
    format: FormatChoice | None = Field(description="a format, or null to leave the layer alone")

    _format = field_validator("format", mode="before")(as_format_choice)


class QuantizationSettings(Settings):
    """What is quantised, and how."""

    format: FormatChoice = FormatChoice(name="bf16")
    activation_format: FormatChoice | None = Field(
        None, description="format of the inputs of the quantised layers; null leaves them alone"
    )
    quantize_encoder: bool = True
    quantize_classifier: bool = False
    scaling: ScalingSettings = ScalingSettings()
    overrides: tuple[Override, ...] = ()

    _formats = field_validator("format", "activation_format", mode="before")(as_format_choice)

    @field_validator("scaling", mode="before")
    @classmethod
    def _mode_alone(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value
