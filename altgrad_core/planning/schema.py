"""The JSON Schema of a suite file, with the settings of every plugin that is installed. Free of torch.

For editors: completion, and a mistake underlined while it is made. The planner remains the judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from altgrad_core.interfaces.plugin import Kind
from altgrad_core.planning.declaration import Contrast
from altgrad_core.planning.draft import SECTIONS
from altgrad_core.planning.reading import LONGEST_NAME, NAME
from altgrad_core.planning.tune import AUTO, TuneSettings
from altgrad_core.quantization.settings import (
    FORMAT_KEYS,
    SCALING_KEYS,
    FormatChoice,
    Override,
    QuantizationSettings,
    ScalingSettings,
)
from altgrad_core.registry.catalog import Catalog
from altgrad_core.training.settings import TrainingSettings

Schema = dict[str, Any]

_KINDS: tuple[Kind, ...] = ("format", "optimizer", "monitor", "task", "tracker")
_ANY_FORMAT = "AnyFormat"


def suite_schema(catalog: Catalog) -> Schema:
    """The schema (draft 2020-12) of the suites that ``catalog`` can plan."""
    return _Writer(catalog).suite()


class _Writer:
    def __init__(self, catalog: Catalog) -> None:
        self._offers = {kind: catalog.offers(kind) for kind in _KINDS}
        models = [
            entry.offer.settings for found in self._offers.values() for entry in found.values()
        ]
        own: list[type[BaseModel]] = [
            TrainingSettings,
            QuantizationSettings,
            Contrast,
            TuneSettings,
        ]
        wanted = dict.fromkeys([*models, *own])
        self._schemas, shared = models_json_schema([(model, "validation") for model in wanted])
        self._defs: dict[str, Schema] = shared["$defs"]
        self._defs[_ANY_FORMAT] = self._format()
        if choice := self._defs.get(FormatChoice.__name__):  # in settings of plugins: short as well
            whole = {**choice, "required": ["name", "settings"]}
            self._defs[FormatChoice.__name__] = {
                "anyOf": [{"$ref": f"#/$defs/{_ANY_FORMAT}"}, whole]
            }

    def suite(self) -> Schema:
        settings = self._sections()
        dotted = {
            f"{section}.{key}": _listed(schema)
            for section, whole in settings.items()
            for key, schema in whole.get("properties", {}).items()
        }
        rows = {"type": "array", "items": {"type": "object"}}
        keys = {"pattern": rf"^({'|'.join(SECTIONS)})(\.|$)"}
        matrix = {"type": "object", "properties": dotted, "propertyNames": keys}
        matrix["additionalProperties"] = {"type": "array", "minItems": 1}
        seeds = {"type": "array", "items": {"type": "integer", "minimum": 0}, "uniqueItems": True}
        structure: dict[str, Schema] = {
            "name": {"type": "string", "pattern": f"^{NAME.pattern}$", "maxLength": LONGEST_NAME},
            "description": {"type": ["string", "null"]},
            "seeds": {**seeds, "minItems": 1},
            "matrix": _or_null(matrix),
            "zip": {"anyOf": [matrix, {"type": "array", "items": matrix}, {"type": "null"}]},
            "include": rows,
            "exclude": rows,
            "contrast": _or_null(self._of(Contrast)),
            "tune": _or_null(self._of(TuneSettings)),
        }
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "altgrad-bench suite",
            **_object({**structure, **settings}),
            "$defs": self._defs,
        }

    def _sections(self) -> dict[str, Schema]:
        training = self._properties(TrainingSettings)
        training["learning_rate"] = _either([training["learning_rate"], {"const": AUTO}])
        quantization = self._properties(QuantizationSettings)
        override = self._properties(Override)
        for place in (quantization, override):
            for key in FORMAT_KEYS:
                if key in place:
                    said = {k: v for k, v in place[key].items() if k in ("description", "default")}
                    place[key] = _or_null({"$ref": f"#/$defs/{_ANY_FORMAT}"}) | said
            for key in SCALING_KEYS:
                if key in place:
                    place[key] = self._scaling(place[key])
        quantization["overrides"] = {"type": "array", "items": _object(override)}
        return {
            "data": _object({"dataset": self._name("task"), **self._of_tasks("data")}),
            "model": _object(self._of_tasks("model")),
            "training": _object(training),
            "quantization": _object(quantization),
            "optimizer": _object(self._optimizer()),
            "monitors": self._chosen("monitor", "all"),
            "trackers": self._chosen("tracker"),
        }

    def _scaling(self, schema: Schema) -> Schema:
        """A mode alone stands for the settings with that mode."""
        modes = self._properties(ScalingSettings)["mode"]["enum"]
        said = {key: schema[key] for key in ("description", "default") if key in schema}
        return {"anyOf": [schema, {"enum": modes}]} | said

    def _optimizer(self) -> dict[str, Schema]:
        offers = self._offers["optimizer"]
        alone = {name: _object(self._properties(e.offer.settings)) for name, e in offers.items()}
        every = _merged(self._properties(entry.offer.settings) for entry in offers.values())
        return {"type": self._name("optimizer"), **every, **alone}

    def _format(self) -> Schema:
        forms: list[Schema] = [self._name("format")]
        for name, entry in self._offers["format"].items():
            properties = self._properties(entry.offer.settings)
            if properties:
                forms.append(_object({"name": {"const": name}, **properties}, ["name"]))
        return {"anyOf": forms}

    def _chosen(self, kind: Kind, *words: str) -> Schema:
        """A list of names, or a mapping from names to settings; ``false`` leaves one out."""
        settings = {
            name: {
                "anyOf": [
                    _object(self._properties(e.offer.settings)),
                    {"type": ["null", "boolean"]},
                ]
            }
            for name, e in self._offers[kind].items()
        }
        names = {"enum": [*self._offers[kind], *words]}
        by_name = _object(settings)
        listed = {"type": "array", "items": {"anyOf": [names, by_name]}}
        return {"anyOf": [names, listed, by_name, {"type": "null"}]}

    def _of_tasks(self, section: str) -> dict[str, Schema]:
        models = (entry.offer.settings for entry in self._offers["task"].values())
        fields = (model.model_fields.get(section) for model in models)
        kinds = [field.annotation for field in fields if field is not None]
        return _merged(
            self._properties(kind)
            for kind in dict.fromkeys(kinds)
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        )

    def _name(self, kind: Kind) -> Schema:
        return {"enum": list(self._offers[kind])}

    def _of(self, model: type[BaseModel]) -> Schema:
        return self._schemas[(model, "validation")]

    def _properties(self, model: type[BaseModel]) -> dict[str, Schema]:
        found = self._schemas.get((model, "validation"), {"$ref": f"#/$defs/{model.__name__}"})
        name = found["$ref"].rpartition("/")[2]
        return dict(self._defs[name].get("properties", {}))


def _object(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
        "required": list(required),
    }


def _merged(every: Iterable[Mapping[str, Schema]]) -> dict[str, Schema]:
    """Properties of several models; one that means different things may be any of them."""
    found: dict[str, list[Schema]] = {}
    for properties in every:
        for key, schema in properties.items():
            if schema not in found.setdefault(key, []):
                found[key].append(schema)
    return {key: _either(schemas) for key, schemas in found.items()}


def _either(schemas: list[Schema]) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _listed(schema: Schema) -> Schema:
    return {"type": "array", "items": schema, "minItems": 1}
