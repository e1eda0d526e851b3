"""Importing this reads the installed plugins, for this process and for those that are forked from it."""

from __future__ import annotations

from altgrad_core.registry.catalog import catalog

catalog()
