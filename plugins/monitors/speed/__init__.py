"""Speed. This module holds the offers; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer
from altgrad_plugins.monitors.speed.settings import ThroughputSettings

OFFERS = (
    Offer(
        "throughput",
        "samples/s, tokens/s and milliseconds per step, warm-up left out",
        "altgrad_plugins.monitors.speed.throughput:ThroughputMonitor",
        ThroughputSettings,
    ),
)
