"""Curvature of the loss. This module holds the offers; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer

OFFERS: tuple[Offer, ...] = ()
