"""What language modelling measures. Free of torch, since planning reads it."""

from __future__ import annotations

from altgrad_core.interfaces.metric import Metric

METRICS: tuple[Metric, ...] = (
    Metric("perplexity", "Perplexity", "lower", primary=True, curve=True),
    Metric("loss", "Loss (nats/token)", "lower", curve=True),
    Metric("bits_per_byte", "Bits per byte", "lower", curve=True),
)
"""The metrics of ``causal_lm``. None has a worst value: a model can be worse than guessing."""
