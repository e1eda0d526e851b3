"""Built-in optimizers: ``adamw``, ``manifold_adamw`` and ``grid_optim``. Free of torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer, hookimpl
from altgrad_plugins.optimizers.settings import (
    AdamWSettings,
    GridOptimSettings,
    ManifoldAdamWSettings,
)


@hookimpl
def altgrad_optimizers() -> list[Offer]:
    """Every built-in optimizer."""
    return [
        Offer(
            name="adamw",
            summary="torch.optim.AdamW, fused where it can be",
            target="altgrad_plugins.optimizers.adamw:AdamWPlugin",
            settings=AdamWSettings,
        ),
        Offer(
            name="manifold_adamw",
            summary="AdamW whose steps follow the spacing of each weight's grid",
            target="altgrad_plugins.optimizers.manifold:ManifoldAdamWPlugin",
            settings=ManifoldAdamWSettings,
            label="manifold",
        ),
        Offer(
            name="grid_optim",
            summary="momentum in rungs: stochastic moves from grid value to grid value",
            target="altgrad_plugins.optimizers.grid:GridOptimPlugin",
            settings=GridOptimSettings,
            label="grid",
        ),
    ]
