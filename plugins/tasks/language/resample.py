"""Scores of blocks of text: sums of losses, tokens and bytes, weighted. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def scores(nats: Floats, tokens: Floats, size: Floats) -> dict[str, Floats]:
    """Metrics of texts with so many nats, predicted tokens and UTF-8 bytes; any shape.

    ``loss`` = nats / tokens, ``perplexity`` = e^loss, ``bits_per_byte`` = nats / (ln 2 · bytes).
    """
    loss = nats / tokens
    with np.errstate(over="ignore"):
        perplexity = np.exp(loss)
    return {"perplexity": perplexity, "loss": loss, "bits_per_byte": nats / (np.log(2.0) * size)}


def weighted_scores(predictions: Mapping[str, NDArray[Any]], weights: Floats) -> dict[str, Floats]:
    """The metrics when each block counts as often as ``weights`` (draws, blocks) say: (draws,) each.

    ``predictions`` holds ``nats``, ``tokens`` and ``bytes`` (blocks,). Losses that are no numbers give
    no scores.
    """
    parts = [predictions[name].astype(np.float64) for name in ("nats", "tokens", "bytes")]
    if not np.isfinite(parts[0]).all():
        return {}
    return scores(*(weights @ part for part in parts))
