"""The rank of weight matrices. This module holds the offers; it does not import torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer
from altgrad_plugins.monitors.rank.settings import RankSettings

OFFERS = (
    Offer(
        "rank",
        "stable and effective rank of each weight matrix, with collapse warnings",
        "altgrad_plugins.monitors.rank.rank:RankMonitor",
        RankSettings,
    ),
)
