"""What a suite plants."""

from __future__ import annotations

from pydantic import Field

from altgrad_core.interfaces import NoSettings, Settings


class PlantedData(Settings):
    """The truth: what the marked side gains in each format, on average over seeds."""

    gains: dict[str, float] = Field(default_factory=dict, description="format -> mean gain")
    noise: float = Field(0.01, description="standard deviation of a seed's gain")
    noises: dict[str, float] = Field(default_factory=dict, description="the same, by format")
    diverging: dict[str, tuple[int, ...]] = Field(
        default_factory=dict, description="format -> seeds in which the marked side diverges"
    )
    per_batch: float = Field(0.0, description="what each sample of a batch adds to the score")
    best_rate: float | None = Field(None, description="rate at which scores are highest")
    examples: int = Field(200, description="examples of the test split")


class PlantedSettings(Settings):
    """Settings of both tasks."""

    data: PlantedData = PlantedData()
    model: NoSettings = NoSettings()


class MarkerSettings(Settings):
    """Settings of both optimizers."""

    strength: float = Field(1.0, description="a setting, so that there can be variants")
