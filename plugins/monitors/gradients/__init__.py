"""Gradients. This module holds the offers; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer
from altgrad_plugins.monitors.gradients.settings import (
    DeadNeuronsSettings,
    GradientErrorSettings,
    GradientNoiseSettings,
    GradientsSettings,
)

OFFERS = (
    Offer(
        "gradients",
        "L2 and L-infinity gradient norms, and entries that are NaN or inf",
        "altgrad_plugins.monitors.gradients.norms:GradientsMonitor",
        GradientsSettings,
    ),
    Offer(
        "gradient_error",
        "cosine, relative error and SNR of each gradient against a float32 pass",
        "altgrad_plugins.monitors.gradients.error:GradientErrorMonitor",
        GradientErrorSettings,
    ),
    Offer(
        "gradient_noise",
        "signal and noise of each gradient and the noise scale, from the parts of the batch",
        "altgrad_plugins.monitors.gradients.noise:GradientNoiseMonitor",
        GradientNoiseSettings,
    ),
    Offer(
        "dead_neurons",
        "units that say nothing, and weight rows without a gradient",
        "altgrad_plugins.monitors.gradients.dead:DeadNeuronsMonitor",
        DeadNeuronsSettings,
    ),
)
