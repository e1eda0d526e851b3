"""The one text that a value of a matrix axis has, in labels, contrasts, tables and reports."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

FORMAT_AXIS = "quantization.format"
OPTIMIZER_AXIS = "optimizer.type"
_LONGEST_LIST = 80


def is_axis(column: str) -> bool:
    """Whether a column of the results table holds a matrix axis."""
    return "." in column and "/" not in column


def axis_text(value: Any) -> str:
    """A value of an axis as readers write it.

    ``{name: exmy, exponent_bits: 3}`` is ``exmy (exponent_bits=3)``, with or without its settings
    under ``settings``; ``1.0`` is ``1``, ``true`` is ``true`` and nothing at all is ``none``. A list that is
    too long to read, such as the values of a table, is their number and a digest of them. Two values have
    the same text only if they are the same.
    """
    value = value.item() if hasattr(value, "item") else value  # numpy's scalars
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return _number(value)
        case Mapping():
            return _mapping(value)
        case list() | tuple():
            return _list([axis_text(item) for item in value])
    return str(value)


def meant(text: str, known: Sequence[str]) -> str:
    """The known value that a user's text stands for; the text itself where there is none.

    ``1e-3`` stands for ``0.001``, and a name alone (``exmy``) for the one value with settings that has
    that name.
    """
    if text in known:
        return text
    with suppress(ValueError):
        if (number := _number(float(text))) in known:
            return number
    same = [one for one in known if one.startswith(f"{text} (")]
    return same[0] if len(same) == 1 else text


def _list(texts: Sequence[str]) -> str:
    text = "+".join(texts)
    if len(text) <= _LONGEST_LIST:
        return text
    return f"{len(texts)} values {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _number(value: float) -> str:
    if math.isfinite(value) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _mapping(value: Mapping[str, Any]) -> str:
    given = dict(value)
    if isinstance(given.get("settings"), Mapping):
        given |= given.pop("settings")
    name = next((given.pop(key) for key in ("name", "type") if key in given), None)
    text = ", ".join(f"{key}={axis_text(item)}" for key, item in sorted(given.items()))
    if name is None:
        return text
    return f"{name} ({text})" if text else str(name)
