"""How weights move on their grids. This module holds the offers; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer
from altgrad_plugins.monitors.geometry.settings import (
    DistanceSettings,
    DriftSettings,
    FlipsSettings,
    MotionSettings,
    ReversalsSettings,
    StiffnessSettings,
    UpdatesSettings,
)

_FAMILY = "altgrad_plugins.monitors.geometry"

OFFERS = (
    Offer(
        "flips",
        "rungs that changed, and intended updates that left the rung unchanged",
        f"{_FAMILY}.flips:FlipsMonitor",
        FlipsSettings,
    ),
    Offer(
        "stiffness",
        "gaps of the grid where the weights stand: quantiles, binades, correlation with gradients",
        f"{_FAMILY}.stiffness:StiffnessMonitor",
        StiffnessSettings,
    ),
    Offer(
        "distance",
        "distance of the weights to the nearest grid value, in ULPs",
        f"{_FAMILY}.distance:DistanceMonitor",
        DistanceSettings,
    ),
    Offer(
        "motion",
        "sizes of the intended updates in rungs",
        f"{_FAMILY}.motion:MotionMonitor",
        MotionSettings,
    ),
    Offer(
        "reversals",
        "flips back in the opposite direction, and flips of the sign",
        f"{_FAMILY}.reversals:ReversalsMonitor",
        ReversalsSettings,
    ),
    Offer(
        "drift",
        "how far the weights have come since the start, in rungs",
        f"{_FAMILY}.drift:DriftMonitor",
        DriftSettings,
    ),
    Offer(
        "updates",
        "how much of the intended update arrives, and its signal to noise",
        f"{_FAMILY}.updates:UpdatesMonitor",
        UpdatesSettings,
    ),
)
