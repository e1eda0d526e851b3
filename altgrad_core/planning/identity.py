"""The content id of a run: what determines its result, and nothing else."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from enum import Enum
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import UNLESS_DEFAULT, Kind, mark_of
from altgrad_core.planning.spec import PluginChoice, RunSpec
from altgrad_core.quantization.settings import FormatChoice
from altgrad_core.registry.catalog import Catalog
from altgrad_core.registry.problems import dotted

_LENGTH = 12


def run_id(spec: RunSpec, catalog: Catalog) -> str:
    """The id that ``spec`` should have (the one it has is not looked at): see :class:`RunSpec`."""
    return digest(Identities(catalog).of(spec))


def digest(identity: Mapping[str, Any]) -> str:
    """The id of a run of which ``identity`` is everything that determines its result."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()[:_LENGTH]


class Identities:
    """The identities of many specs: parts that they share are put into plain data once."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._seen: dict[int, tuple[object, Any]] = {}

    def of(self, spec: RunSpec) -> dict[str, Any]:
        """Everything that determines the result of ``spec``. Parts are shared: nothing may change them."""
        return {
            "task": self._choice("task", spec.task),
            "quantization": self._once(
                spec.quantization, lambda: _plain(spec.quantization, self._catalog)
            ),
            "optimizer": self._choice("optimizer", spec.optimizer),
            "training": _plain(spec.training, self._catalog),
            "monitors": [self._choice("monitor", monitor) for monitor in spec.monitors],
            "seed": spec.seed,
            "distributions": dict(spec.distributions),
            "fingerprint": dict(spec.fingerprint),
        }

    def _choice(self, kind: Kind, choice: PluginChoice) -> Any:
        return self._once(choice, lambda: _choice(kind, choice, self._catalog))

    def _once(self, part: object, plain: Callable[[], Any]) -> Any:
        if id(part) not in self._seen:
            self._seen[id(part)] = part, plain()  # held, so that no other part gets its number
        return self._seen[id(part)][1]


def canonical(value: Any) -> str:
    """The one JSON text of ``value``: sorted keys, no spaces, floats that read back the same."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        where = next(_not_finite(value, ()), "one of them")
        raise UserError(f"every number in a setting must be finite: {where} is not") from error


def _not_finite(value: Any, path: tuple[str | int, ...]) -> Iterator[str]:
    """Where the infinities and NaNs are, and what each is."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, (*path, str(key)))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            yield from _not_finite(item, (*path, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{dotted(path)} = {value}" if path else str(value)


def _choice(kind: Kind, choice: PluginChoice | FormatChoice, catalog: Catalog) -> dict[str, Any]:
    settings = catalog.validate(kind, choice.name, choice.settings)
    return {"name": choice.name, "settings": _plain(settings, catalog)}


def _plain(value: Any, catalog: Catalog) -> Any:
    """``value`` as JSON data, without the fields that their marks leave out: see :class:`Settings`."""
    match value:
        case FormatChoice():
            return _choice("format", value, catalog)
        case BaseModel():
            return dict(_members(value, catalog))
        case Mapping():
            return {str(key): _plain(item, catalog) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, catalog) for item in value]
        case Set():
            return sorted((_plain(item, catalog) for item in value), key=repr)
        case Enum():
            return value.value
        case PurePath():
            return value.as_posix()
        case None | bool() | int() | float() | str():
            return value
    raise UserError(
        f"a setting of type {type(value).__name__} cannot be part of a run's id: {value!r}"
    )


def _members(value: BaseModel, catalog: Catalog) -> Iterator[tuple[str, Any]]:
    """The fields of a settings model that are part of the identity, as JSON data."""
    for name, info in type(value).model_fields.items():
        mark = mark_of(info)
        if mark is False:
            continue
        plain = _plain(getattr(value, name), catalog)
        if mark == UNLESS_DEFAULT and plain == _plain(
            info.get_default(call_default_factory=True), catalog
        ):
            continue
        yield name, plain
