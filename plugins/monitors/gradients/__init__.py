"""Gradients. This module holds the offers; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer
from altgrad_plugins.monitors.gradients.settings import GradientsSettings

OFFERS = (
    Offer(
        "gradients",
        "L2 and L-infinity gradient norms, and entries that are NaN or inf",
        "altgrad_plugins.monitors.gradients.norms:GradientsMonitor",
        GradientsSettings,
    ),
)
