"""A run's spec as the sections of a suite file, and a format as users write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from altgrad_core.planning.spec import RunSpec
from altgrad_core.quantization.settings import FORMAT_KEYS, FormatChoice
from altgrad_core.registry.catalog import Catalog


def as_sections(spec: RunSpec) -> dict[str, dict[str, Any]]:
    """The sections of the suite file that declares ``spec``, every default written out."""
    quantization = spec.quantization.model_dump(mode="json")
    for place in (quantization, *quantization["overrides"]):
        for key in FORMAT_KEYS:
            if place.get(key) is not None:
                place[key] = _compact(**place[key])
    settings = spec.task.settings
    data = {"dataset": spec.task.name, **(settings.get("data") or {})}
    return {
        **({"model": settings["model"]} if settings.get("model") else {}),
        "data": data,
        "training": spec.training.model_dump(mode="json"),
        "quantization": quantization,
        "optimizer": {"type": spec.optimizer.name, **spec.optimizer.settings},
        "monitors": {choice.name: choice.settings for choice in spec.monitors},
        "trackers": {choice.name: choice.settings for choice in spec.trackers},
    }


def short_format(choice: FormatChoice, catalog: Catalog) -> Any:
    """A format as users would write it: its name, with the settings that are not the default."""
    model = catalog.validate("format", choice.name, choice.settings)
    return _compact(choice.name, model.model_dump(mode="json", exclude_defaults=True))


def _compact(name: str, settings: Mapping[str, Any]) -> Any:
    """A format in a suite file: its name, or its name among its settings."""
    if not settings:
        return name
    if "name" in settings or "settings" in settings:
        return {"name": name, "settings": dict(settings)}
    return {"name": name, **settings}
