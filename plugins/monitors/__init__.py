"""Built-in monitors. This module holds the hook; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer, hookimpl
from altgrad_plugins.monitors.settings import (
    AmaxSettings,
    FlipsSettings,
    GradientsSettings,
    OverflowSettings,
    RankSettings,
    ThroughputSettings,
)


@hookimpl
def altgrad_monitors() -> list[Offer]:
    """The monitors of the main table."""
    return [
        Offer(
            "flips",
            "rungs that changed, and intended updates that left the rung unchanged",
            "altgrad_plugins.monitors.flips:FlipsMonitor",
            FlipsSettings,
        ),
        Offer(
            "rank",
            "stable and effective rank of each weight matrix, with collapse warnings",
            "altgrad_plugins.monitors.rank:RankMonitor",
            RankSettings,
        ),
        Offer(
            "overflow",
            "what is too large or too small for the format: forward, backward and optimizer",
            "altgrad_plugins.monitors.overflow:OverflowMonitor",
            OverflowSettings,
        ),
        Offer(
            "amax",
            "largest weight and gradient of each layer, and the scale in force",
            "altgrad_plugins.monitors.amax:AmaxMonitor",
            AmaxSettings,
        ),
        Offer(
            "gradients",
            "L2 and L-infinity gradient norms, and entries that are NaN or inf",
            "altgrad_plugins.monitors.gradients:GradientsMonitor",
            GradientsSettings,
        ),
        Offer(
            "throughput",
            "samples/s, tokens/s and milliseconds per step, warm-up left out",
            "altgrad_plugins.monitors.throughput:ThroughputMonitor",
            ThroughputSettings,
        ),
    ]
