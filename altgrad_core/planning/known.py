"""Which settings there are at all, whatever plugin is chosen."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from altgrad_core.interfaces.plugin import Kind
from altgrad_core.planning.document import Document
from altgrad_core.quantization.settings import QuantizationSettings
from altgrad_core.registry.catalog import Catalog
from altgrad_core.registry.problems import unknown
from altgrad_core.training.settings import TrainingSettings

_LISTS: dict[str, Kind] = {"monitors": "monitor", "trackers": "tracker"}


def refuse_unknown_key(path: tuple[str, ...], document: Document, catalog: Catalog) -> None:
    """Raise ``UserError`` if ``path``, e.g. ``("optimizer", "lr")``, is no setting of anything."""
    if len(path) < 2:
        return
    section, key = path[:2]
    known = _known_keys(section, catalog)
    if known is not None and key not in known:
        raise document.error(f"{'.'.join(path)}: {unknown('key', key, known)}", (".".join(path),))


def _known_keys(section: str, catalog: Catalog) -> list[str] | None:
    """The keys of a section, of all plugins together; None where a plugin takes any."""
    if section == "training":
        return list(TrainingSettings.model_fields)
    if section == "quantization":
        return list(QuantizationSettings.model_fields)
    if section in _LISTS:
        return catalog.names(_LISTS[section])
    if section == "optimizer":
        offers = catalog.offers("optimizer").values()
        return _unique(["type"], *(entry.offer.settings.model_fields for entry in offers))
    first = ["dataset"] if section == "data" else []
    fields = []
    for entry in catalog.offers("task").values():
        info = entry.offer.settings.model_fields.get(section)
        if info is None:
            continue
        if not (isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)):
            return None
        fields.append(info.annotation.model_fields)
    return _unique(first, *fields)


def _unique(*lists: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for names in lists for name in names))
