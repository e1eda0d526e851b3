"""Every setting that a suite may have, as dotted keys: read off the schema of suite files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

_WHOLE = ("matrix", "zip", "include", "exclude")
"""Parts of a suite whose keys are settings again."""


@dataclass(frozen=True)
class Key:
    """One setting."""

    types: str
    """``integer``, ``string or null``, … as JSON Schema names them."""
    default: Any
    """None also where there is none."""
    meaning: str
    values: tuple[str, ...]
    """Its values, as YAML, where they are a list of words; else those among them that are."""


def setting_keys(schema: Schema) -> dict[str, Key]:
    """``training.max_steps`` and so on, in the order of the schema of :func:`.schema.suite_schema`."""
    return dict(_Reader(schema["$defs"]).below("", schema))


class _Reader:
    def __init__(self, definitions: dict[str, Schema]) -> None:
        self._definitions = definitions

    def below(self, prefix: str, schema: Schema) -> Iterator[tuple[str, Key]]:
        """What lies inside ``schema``; ``prefix`` ends in a dot, or is empty."""
        found: dict[str, list[Schema]] = {}
        for form in self._forms(schema):
            for name, inner in form.get("properties", {}).items():
                found.setdefault(name, []).append(inner)
        for name, inners in found.items():
            whole = {"anyOf": inners} if len(inners) > 1 else inners[0]
            if prefix or "properties" not in whole:  # a section itself is no setting
                yield f"{prefix}{name}", self._key(whole)
            if prefix or name not in _WHOLE:
                yield from self.below(f"{prefix}{name}.", whole)

    def _key(self, schema: Schema) -> Key:
        forms = list(self._forms(schema))
        types: dict[str, None] = {}
        words: dict[str, None] = {}
        for form in forms:
            kind = form.get("type") or ("string" if "enum" in form or "const" in form else "any")
            types.update(dict.fromkeys([kind] if isinstance(kind, str) else kind))
            words.update(dict.fromkeys(_words(form)))
        said = [schema, *forms]
        default = next((one["default"] for one in said if "default" in one), None)
        meaning = next((one["description"] for one in said if "description" in one), "")
        return Key(" or ".join(types), default, meaning, tuple(words))

    def _forms(self, schema: Schema) -> Iterator[Schema]:
        """The schema itself, or each that it may be, references resolved."""
        if "$ref" in schema:
            yield from self._forms(self._definitions[schema["$ref"].rpartition("/")[2]])
        for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            yield from self._forms(one)
        if not {"$ref", "anyOf", "oneOf"} & schema.keys():
            yield schema


def _words(form: Schema) -> list[str]:
    if form.get("type") == "boolean":
        return ["true", "false"]
    if form.get("type") == "null":
        return ["null"]
    return [
        str(word) for word in (*form.get("enum", ()), *([form["const"]] if "const" in form else []))
    ]
