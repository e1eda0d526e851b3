"""What the settings of monitors share. Free of torch, since planning reads them."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from altgrad_core.interfaces.plugin import Settings


class LayerSettings(Settings):
    """For monitors of weights; each has a default interval of its own."""

    interval: PositiveInt = Field(20, description="steps between measurements")
    layers: tuple[str, ...] = Field(
        ("*",), min_length=1, description="fnmatch patterns of the weights to watch"
    )
