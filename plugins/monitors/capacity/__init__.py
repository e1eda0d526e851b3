"""How much of a format the weights use. This module holds the offers; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer
from altgrad_plugins.monitors.capacity.settings import CodeUsageSettings, UniformitySettings

OFFERS = (
    Offer(
        "code_usage",
        "grid values in use and their entropy, with collapse warnings",
        "altgrad_plugins.monitors.capacity.code_usage:CodeUsageMonitor",
        CodeUsageSettings,
    ),
    Offer(
        "uniformity",
        "whether steps in rungs are proportional to steps of the weights",
        "altgrad_plugins.monitors.capacity.uniformity:UniformityMonitor",
        UniformitySettings,
    ),
)
