"""Curvature of the loss. This module holds the offers; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer
from altgrad_plugins.monitors.curvature.settings import CurvatureSettings

OFFERS = (
    Offer(
        "curvature",
        "Hessian eigenvalues and trace, and the loss that rounding is predicted to cost",
        "altgrad_plugins.monitors.curvature.curvature:CurvatureMonitor",
        CurvatureSettings,
    ),
)
