"""Monitors that act: off unless a suite asks for them by name. No torch here."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer
from altgrad_plugins.monitors.interventions.settings import (
    GradientClipSettings,
    MantissaShiftSettings,
)

OFFERS = (
    Offer(
        "gradient_clip",
        "acts: clips each layer's gradient to the dynamic range of its format",
        "altgrad_plugins.monitors.interventions.gradient_clip:GradientClipMonitor",
        GradientClipSettings,
        intervenes=True,
    ),
    Offer(
        "mantissa_shift",
        "acts: skips steps with broken gradients, moves layers along a chain of formats",
        "altgrad_plugins.monitors.interventions.mantissa_shift:MantissaShiftMonitor",
        MantissaShiftSettings,
        intervenes=True,
    ),
)
