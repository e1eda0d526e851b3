"""Built-in trackers. This module holds the hook; it imports neither torch nor wandb."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Need, Offer, hookimpl
from altgrad_plugins.trackers.settings import JsonlSettings, WandbSettings


@hookimpl
def altgrad_trackers() -> list[Offer]:
    """A JSON-lines file, and Weights & Biases."""
    return [
        Offer(
            "jsonl",
            "every metric and event as a line of JSON, for log shippers",
            "altgrad_plugins.trackers.jsonl:JsonlTracker",
            JsonlSettings,
        ),
        Offer(
            "wandb",
            "Weights & Biases: metrics, settings, alerts; online, offline or disabled",
            "altgrad_plugins.trackers.wandb:WandbTracker",
            WandbSettings,
            needs=(Need("module", "wandb", "pip install wandb"),),
            example={"mode": "disabled"},
            source="altgrad_plugins.trackers.wandb_source:read_wandb",
        ),
    ]
