"""The frozen, self-contained description of one run, and its content id."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from altgrad_core.interfaces.layout import LAYOUT as LAYOUT
from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.plugin import Settings
from altgrad_core.quantization.settings import QuantizationSettings
from altgrad_core.training.settings import TrainingSettings


class PluginChoice(Settings):
    """A plugin by name with its fully resolved settings (every default written out)."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


class RunSpec(Settings):
    """One run. Whoever has this file, the data and the same versions can repeat it.

    ``id`` is the first 12 hex digits of the SHA-256 of the canonical JSON of everything that
    determines the result: ``task``, ``quantization``, ``optimizer``, ``training``, ``monitors``,
    ``seed``, ``distributions`` and ``fingerprint``, less the settings that their models mark as no part of
    it (:class:`~altgrad_core.interfaces.plugin.Settings`). Names of suite and condition, trackers, executor, device and
    paths never enter.
    """

    layout: int = LAYOUT
    id: str
    suite: str
    condition: str = Field(description="label of everything but the seed, e.g. e5m2_manifold_adamw")
    axes: dict[str, Any] = Field(
        default_factory=dict,
        description="axes along which the suite's cells differ independently: dotted key -> value",
    )
    seed: int
    task: PluginChoice
    quantization: QuantizationSettings
    optimizer: PluginChoice
    training: TrainingSettings
    monitors: tuple[PluginChoice, ...] = ()
    trackers: tuple[PluginChoice, ...] = ()
    distributions: dict[str, str] = Field(
        default_factory=dict, description="distribution -> version, of those that provide plugins"
    )
    fingerprint: dict[str, str] = Field(
        default_factory=dict, description="identity of the data and other inputs"
    )
    metrics: tuple[Metric, ...] = Field(
        (), description="what the task measures, so that results can be read without its plugin"
    )
