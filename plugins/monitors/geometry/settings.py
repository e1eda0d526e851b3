"""Settings of the monitors of geometry. Free of torch, since planning reads them."""

from __future__ import annotations

from altgrad_plugins.monitors.settings import LayerSettings


class FlipsSettings(LayerSettings):
    """Settings of ``flips``."""
