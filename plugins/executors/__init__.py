"""Built-in executors: the offers. Free of torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Offer, hookimpl


@hookimpl
def altgrad_executors() -> list[Offer]:
    """Child processes on this machine."""
    return [
        Offer(
            name="local",
            summary="child processes on this machine, --workers at a time",
            target="altgrad_plugins.executors.local:LocalExecutor",
        ),
        Offer(
            name="fresh",
            summary="as local, but each imports everything anew: slower, and never forked",
            target="altgrad_plugins.executors.local:FreshExecutor",
        ),
    ]
