"""Monitors that act: off unless a suite asks for them by name. No torch here."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer

OFFERS: tuple[Offer, ...] = ()
