"""Plugins by name, for callers that know what they want."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from altgrad_core.registry.catalog import catalog

if TYPE_CHECKING:
    from altgrad_core.interfaces.format import Format


def load_format(name: str, /, **settings: Any) -> Format:
    """The format of that name: ``load_format("e5m2")``, ``load_format("exmy", exponent_bits=3)``.

    Raises ``UserError`` for an unknown name (with the nearest one) or wrong settings.
    """
    built: Format = catalog().build("format", name, settings)
    return built
