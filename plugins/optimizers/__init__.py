"""Built-in optimizers: two that follow the grid, and their rivals. Free of torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer, hookimpl
from altgrad_plugins.optimizers.settings import (
    AdamWSettings,
    GridOptimSettings,
    LionSettings,
    MadamSettings,
    ManifoldAdamWSettings,
    SGDSettings,
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
        Offer(
            name="sgd",
            summary="torch.optim.SGD, in the coordinates of the grid if asked to",
            target="altgrad_plugins.optimizers.sgd:SGDPlugin",
            settings=SGDSettings,
        ),
        Offer(
            name="lion",
            summary="sign momentum: every weight moves by the learning rate",
            target="altgrad_plugins.optimizers.lion:LionPlugin",
            settings=LionSettings,
        ),
        Offer(
            name="madam",
            summary="multiplicative updates: every weight moves in proportion to itself",
            target="altgrad_plugins.optimizers.madam:MadamPlugin",
            settings=MadamSettings,
        ),
    ]
