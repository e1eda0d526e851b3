"""Settings of the monitors of gradients. Free of torch, since planning reads them."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from altgrad_plugins.monitors.settings import LayerSettings


class GradientsSettings(LayerSettings):
    """Settings of ``gradients``."""

    interval: PositiveInt = Field(50, description="steps between measurements")


class GradientErrorSettings(LayerSettings):
    """Settings of ``gradient_error``."""

    interval: PositiveInt = Field(
        400, description="steps between measurements, each of which costs about a step"
    )
    misaligned: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="report a layer whose cosine falls to this or below; -1: practically never",
    )


class GradientNoiseSettings(LayerSettings):
    """Settings of ``gradient_noise``."""

    interval: PositiveInt = Field(
        1000, description="steps between measurements, each of which costs about a step"
    )
    parts: int = Field(
        4, ge=2, description="parts that the step's batch is split into, at most its examples"
    )


class DeadNeuronsSettings(LayerSettings):
    """Settings of ``dead_neurons``."""

    interval: PositiveInt = Field(100, description="steps between measurements")
    layers: tuple[str, ...] = Field(
        ("*",),
        min_length=1,
        description="fnmatch patterns of the weights and of the activation modules to watch",
    )
    epsilon: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="a unit of GELU or SiLU whose outputs stay below this times the layer's rms is dead",
    )
