"""Saying what is wrong with a name or a setting, what would be right, and what was meant."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from altgrad_core.errors import UserError

Path = tuple[str | int, ...]
"""Where a setting stands: keys and list indices from the top."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the setting at ``path``."""

    path: Path
    message: str


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed name most like ``word``, or the longest that stands in it; None where nothing is alike."""
    by_folded, folded = {name.casefold(): name for name in allowed}, word.casefold()
    found = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    held = sorted((name for name in by_folded if len(name) >= 4 and name in folded), key=len)
    return by_folded[(found or held[::-1])[0]] if found or held else None


def unknown(what: str, word: str, allowed: Iterable[str]) -> str:
    """``unknown format 'e5m3'. Did you mean 'e5m2'? Allowed: …``."""
    names = list(allowed)
    guess = nearest(word, names)
    meant = f" Did you mean {guess!r}?" if guess else ""
    told = map(repr, names) if any("," in name for name in names) else names
    known = f" Allowed: {', '.join(told)}." if names else f" There is no {what} to choose from."
    return f"unknown {what} {word!r}.{meant}{known}"


def dotted(path: Path) -> str:
    """``training.max_steps``, ``quantization.overrides[0].format``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def explain(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Each path that ``model`` refuses, once, with a message that says what would be right."""
    messages: dict[Path, list[str]] = {}
    for details in error.errors(include_url=False):
        path, parent = _locate(model, details)
        message = _message(details, path, parent)
        seen = messages.setdefault(path, [])
        if message not in seen:
            seen.append(message)
    return [Problem(path, "; or ".join(seen)) for path, seen in messages.items()]


def meant_as_axis(model: type[BaseModel], settings: Any, path: Path) -> bool:
    """Whether the list that ``model`` refuses at ``path`` holds values of which each alone is right there."""
    held = settings
    for part in path:
        if not isinstance(held, Mapping) or part not in held:
            return False
        held = held[part]
    if not isinstance(held, list) or not held:
        return False

    def refused(value: Any) -> bool:
        try:
            model.model_validate(_replaced(settings, path, value))
        except ValidationError as error:
            return any(problem.path[: len(path)] == path for problem in explain(error, model))
        except UserError:  # a validator's own words
            return True
        return False

    return not any(map(refused, held))


def _replaced(settings: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    return {**settings, path[0]: _replaced(settings[path[0]], path[1:], value)}


def _message(details: ErrorDetails, path: Path, parent: type[BaseModel] | None) -> str:
    value, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            return unknown("key", str(path[-1]), parent.model_fields if parent else ())
        case "missing":
            field = parent.model_fields.get(str(path[-1])) if parent else None
            about = f" ({field.description})" if field and field.description else ""
            return f"this key is required{about}"
        case "literal_error" | "enum":
            expected = str(context.get("expected", ""))
            options = [name.strip("'") for name in expected.replace(" or ", ", ").split(", ")]
            guess = nearest(value, options) if isinstance(value, str) else None
            meant = f" Did you mean {guess!r}?" if guess else ""
            return f"{value!r} is not allowed.{meant} Allowed: {', '.join(options)}."
        case "value_error" | "assertion_error":
            return str(context.get("error", details["msg"]))
    text = details["msg"]
    return f"{text[:1].lower()}{text[1:]}, got {_shortened(value)}"


def _shortened(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _locate(model: type[BaseModel], details: ErrorDetails) -> tuple[Path, type[BaseModel] | None]:
    """The path as the user wrote it, and the model that holds its last key.

    pydantic's location also names the member of a union that was tried (``('path', 'list[str]')``):
    those parts are no keys, and are taken out.
    """
    path: list[str | int] = []
    here: type[BaseModel] | None = model
    parent: type[BaseModel] | None = model
    own_keys = False  # whether the next part is a key of a dict, so the user's own word
    refused = details["loc"][-1] if details["type"] == "extra_forbidden" else None
    for part in details["loc"]:
        if isinstance(part, int) or here is None or own_keys:
            path.append(part)
            own_keys = False
        elif part in here.model_fields:
            path.append(part)
            annotation = here.model_fields[part].annotation
            own_keys = typing.get_origin(annotation) is dict
            parent, here = here, next(_models_in(annotation), None)
            if here is None and typing.get_origin(annotation) not in (dict, list, tuple):
                break
        elif part is refused:
            path.append(part)
            parent = here
    return tuple(path), parent


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
