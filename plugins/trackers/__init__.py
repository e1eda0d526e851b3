"""Built-in trackers. This module holds the hook; it imports neither torch nor wandb."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Need, Offer, hookimpl
from altgrad_plugins.trackers.settings import JsonlSettings, NotifySettings, WandbSettings


@hookimpl
def altgrad_trackers() -> list[Offer]:
    """A JSON-lines file, notices to a person, and Weights & Biases."""
    return [
        Offer(
            "jsonl",
            "every metric and event as a line of JSON, for log shippers",
            "altgrad_plugins.trackers.jsonl:JsonlTracker",
            JsonlSettings,
        ),
        Offer(
            "notify",
            "a command or web hook of yours, told when runs fail and when the suite ends",
            "altgrad_plugins.trackers.notify_tracker:NotifyTracker",
            NotifySettings,
            notify="altgrad_plugins.trackers.notify:notify",
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
