"""The plugin: what altgrad-bench reads to know that there is a format ``nf4``. Free of torch."""

from __future__ import annotations

from altgrad_core.interfaces import Offer, hookimpl


@hookimpl
def altgrad_formats() -> list[Offer]:
    """The one format of this package."""
    return [
        Offer(
            name="nf4",
            summary="4-bit NormalFloat: a grid value for each quantile of a normal distribution",
            target="altgrad_nf4.nf4:build",
            details={"source": "Dettmers et al. 2023, QLoRA, appendix E", "largest": 1.0},
        )
    ]
