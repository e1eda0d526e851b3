"""What a settings model must be: strict to the bottom, so that no key of a suite passes unread."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from altgrad_core.interfaces.plugin import Settings, mark_of


def settings_fault(model: Any) -> str:
    """What is wrong with the settings of an offer, to follow the word ``settings``; empty if nothing is."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return f"are {model!r}, which is not a subclass of altgrad_core.interfaces.Settings"
    for one in dict.fromkeys(models_of(model)):
        where = "" if one is model else f", by their part {one.__name__},"
        if one.model_config.get("extra") != "forbid":
            return (
                f"are {model.__name__}, which lets unknown keys pass in silence{where} since that is a plain "
                f"pydantic model or allows extra keys: make it a subclass of altgrad_core.interfaces.Settings"
            )
        if not one.model_config.get("frozen"):
            return (
                f"are {model.__name__}, whose values can be changed after they were checked{where}: make it a "
                f"subclass of altgrad_core.interfaces.Settings"
            )
        for name, info in one.model_fields.items():
            try:
                mark_of(info)
            except ValueError as error:
                return f"are {model.__name__}, of which {name}{where} {error}"
    if not issubclass(model, Settings):
        return f"are {model.__name__}, which is not a subclass of altgrad_core.interfaces.Settings: make it one"
    return ""


def models_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model, and every model in its fields, lists, dicts and unions of models included."""
    seen: set[type[BaseModel]] = set()
    waiting: list[Any] = [model]
    while waiting:
        here = waiting.pop(0)
        waiting += typing.get_args(here)
        if isinstance(here, type) and issubclass(here, BaseModel) and here not in seen:
            seen.add(here)
            yield here
            waiting += [info.annotation for info in here.model_fields.values()]
