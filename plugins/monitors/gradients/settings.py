"""Settings of the monitors of gradients. Free of torch, since planning reads them."""

from __future__ import annotations

from altgrad_plugins.monitors.settings import LayerSettings


class GradientsSettings(LayerSettings):
    """Settings of ``gradients``."""
