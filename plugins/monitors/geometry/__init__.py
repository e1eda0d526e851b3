"""How weights move on their grids. This module holds the offers; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer
from altgrad_plugins.monitors.geometry.settings import FlipsSettings

OFFERS = (
    Offer(
        "flips",
        "rungs that changed, and intended updates that left the rung unchanged",
        "altgrad_plugins.monitors.geometry.flips:FlipsMonitor",
        FlipsSettings,
    ),
)
