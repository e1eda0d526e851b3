"""The plugin: what altgrad-bench reads to know what this package offers. Free of torch."""

from __future__ import annotations

from altgrad_core.interfaces import Offer, hookimpl
from altgrad_posit8.settings import Posit8Settings, RungSGDSettings


@hookimpl
def altgrad_formats() -> list[Offer]:
    """The format."""
    return [
        Offer(
            name="posit8",
            summary="8-bit posit: most precise around 1, less and less towards both ends",
            target="altgrad_posit8.posit8:build",
            settings=Posit8Settings,
            label="posit8es{es}",
            details={"source": "Gustafson and Yonemoto 2017; Posit Standard 2022"},
        )
    ]


@hookimpl
def altgrad_optimizers() -> list[Offer]:
    """The optimizer."""
    return [
        Offer(
            name="rung_sgd",
            summary="SGD with momentum whose learning rate counts rungs of the grid",
            target="altgrad_posit8.rung_sgd:RungSGDPlugin",
            settings=RungSGDSettings,
        )
    ]


@hookimpl
def altgrad_sections() -> list[Offer]:
    """The section of the report."""
    return [
        Offer(
            name="whereabouts",
            summary="where on its grid each format holds the weights",
            target="altgrad_posit8.whereabouts:Whereabouts",
            order=115,
        )
    ]
