"""What formats can hold and what not. This module holds the offers; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer
from altgrad_plugins.monitors.stability.settings import AmaxSettings, OverflowSettings

OFFERS = (
    Offer(
        "overflow",
        "what is too large or too small for the format: forward, backward and optimizer",
        "altgrad_plugins.monitors.stability.overflow:OverflowMonitor",
        OverflowSettings,
    ),
    Offer(
        "amax",
        "largest weight and gradient of each layer, and the scale in force",
        "altgrad_plugins.monitors.stability.amax:AmaxMonitor",
        AmaxSettings,
    ),
)
