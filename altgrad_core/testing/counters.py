"""The numbers that an object keeps to itself, to compare two that ought to be in one state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from torch import Tensor, nn, optim

_DEPTH, _MOST = 4, 200
_LEFT_OUT = (nn.Module, optim.Optimizer, nn.Parameter, ModuleType)


def numbers(thing: object) -> dict[str, float]:
    """Attribute path -> number, for the numbers in an object's attributes, and the sums of its tensors.

    Containers and other objects are gone into; modules and other optimizers are not.
    """
    return (
        dict(_numbers(vars(thing), "", _DEPTH, {id(thing)})) if hasattr(thing, "__dict__") else {}
    )


def _numbers(value: Any, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, float]]:
    if isinstance(value, int | float):
        yield path, float(value)
    elif isinstance(value, Tensor):
        if value.numel() and not isinstance(value, nn.Parameter) and not value.is_complex():
            yield path, float(value.detach().double().sum())
    elif depth and id(value) not in seen and not isinstance(value, _LEFT_OUT):
        seen.add(id(value))
        for key, inner in list(_inside(value))[:_MOST]:
            dotted = f"{path}.{key}" if path and isinstance(key, str) else f"{path}[{key!r}]"
            yield from _numbers(inner, dotted if path else str(key), depth - 1, seen)


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from ((key, one) for key, one in value.items() if isinstance(key, str | int))
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif not isinstance(value, type) and hasattr(value, "__dict__"):
        yield from vars(value).items()


def difference(
    one: Mapping[str, float], two: Mapping[str, float]
) -> tuple[str, float, float] | None:
    """The first path at which both have a number, and not the same one."""
    for path, value in one.items():
        other = two.get(path, value)
        if value != other and not (math.isnan(value) and math.isnan(other)):
            return path, value, other
    return None
