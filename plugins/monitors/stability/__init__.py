"""What formats can hold and what not. This module holds the offers; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer
from altgrad_plugins.monitors.stability.settings import (
    AmaxSettings,
    NonfiniteSettings,
    OverflowSettings,
    RangeSettings,
    StallsSettings,
)

OFFERS = (
    Offer(
        "overflow",
        "what is too large or too small for the format: forward, backward and optimizer",
        "altgrad_plugins.monitors.stability.overflow:OverflowMonitor",
        OverflowSettings,
    ),
    Offer(
        "nonfinite",
        "the first tensor with a NaN or inf and its step: forward, backward and optimizer",
        "altgrad_plugins.monitors.stability.nonfinite:NonfiniteMonitor",
        NonfiniteSettings,
    ),
    Offer(
        "amax",
        "largest weight and gradient of each layer, and the scale in force",
        "altgrad_plugins.monitors.stability.amax:AmaxMonitor",
        AmaxSettings,
    ),
    Offer(
        "range",
        "dynamic range of weights and gradients: moving amax, percentiles, binades spanned",
        "altgrad_plugins.monitors.stability.dynamic_range:RangeMonitor",
        RangeSettings,
    ),
    Offer(
        "stalls",
        "updates that rounding to nearest would lose, and what became of them",
        "altgrad_plugins.monitors.stability.stalls:StallsMonitor",
        StallsSettings,
    ),
)
