"""Built-in monitors, a folder for each family. This module holds the hook; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer, hookimpl
from altgrad_plugins.monitors import (
    capacity,
    curvature,
    geometry,
    gradients,
    interventions,
    rank,
    speed,
    stability,
)


@hookimpl
def altgrad_monitors() -> list[Offer]:
    """Every built-in monitor."""
    families = (stability, gradients, geometry, capacity, rank, curvature, speed, interventions)
    return [offer for family in families for offer in family.OFFERS]
