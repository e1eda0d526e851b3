"""The whole plugin contract: seven hooks. A plugin module implements those it has something for.

Each returns offers (any iterable of :class:`~altgrad_core.interfaces.plugin.Offer`) and does no
work: it must not import torch, read files or touch a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pluggy

from altgrad_core.interfaces.plugin import PROJECT, Kind, Offer

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec
def altgrad_formats() -> Iterable[Offer]:
    """Number formats; ``target(name, settings)`` returns a ``Format``."""
    raise NotImplementedError


@hookspec
def altgrad_optimizers() -> Iterable[Offer]:
    """Optimizers; ``target(settings)`` returns an ``OptimizerPlugin``."""
    raise NotImplementedError


@hookspec
def altgrad_monitors() -> Iterable[Offer]:
    """Observers of the step loop; ``target(settings)`` returns a ``Monitor``."""
    raise NotImplementedError


@hookspec
def altgrad_tasks() -> Iterable[Offer]:
    """Data with a model, a loss and an evaluation; ``target(settings)`` returns a ``Task``."""
    raise NotImplementedError


@hookspec
def altgrad_sections() -> Iterable[Offer]:
    """Parts of the report; ``target(settings)`` returns a ``Section``."""
    raise NotImplementedError


@hookspec
def altgrad_executors() -> Iterable[Offer]:
    """Ways to run jobs; ``target(settings)`` returns an ``Executor``."""
    raise NotImplementedError


@hookspec
def altgrad_trackers() -> Iterable[Offer]:
    """Receivers of metrics; ``target(settings)`` returns a ``Tracker``."""
    raise NotImplementedError


HOOKS: Mapping[Kind, str] = {
    "format": "altgrad_formats",
    "optimizer": "altgrad_optimizers",
    "monitor": "altgrad_monitors",
    "task": "altgrad_tasks",
    "section": "altgrad_sections",
    "executor": "altgrad_executors",
    "tracker": "altgrad_trackers",
}
"""The hook of each kind of plugin."""
