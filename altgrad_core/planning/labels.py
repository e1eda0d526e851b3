"""Short, unique, file-name-safe labels of conditions: ``e5m2_manifold_learning_rate=0.001``.

A value that is a word speaks for itself (``e5m2_adamw_grid_stochastic``), and ``none`` says nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from altgrad_core._axis import axis_text

_UNSAFE = re.compile(r"[^A-Za-z0-9._=+-]+")
_WORD = re.compile(r"(?!true$|false$)[A-Za-z][A-Za-z_-]*")
_FIRST = ("quantization.format", "optimizer.type")
"""The axes that a reader thinks of first."""


def design_axes(
    keys: Sequence[str], rows: Sequence[Mapping[str, Any]], asked: str = ""
) -> list[str]:
    """The keys along which the conditions differ independently, format and optimizer first.

    A key that follows from others (a learning rate zipped to the optimizer) is left out: conditions
    that differ in nothing but one axis have equal values in all others. Of several that follow from
    one another, ``asked``, the axis of the contrast, is the one that is kept, then format, optimizer,
    and the first.
    """
    kept: list[str] = []
    order = sorted(keys, key=lambda key: (key not in _FIRST, key != _FIRST[0]))
    for key in sorted(order, key=lambda key: key != asked):
        texts: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
        for row in rows:
            texts[tuple(axis_text(row.get(one)) for one in kept)].add(axis_text(row.get(key)))
        constant = len(set().union(*texts.values())) == 1
        if constant or any(len(values) > 1 for values in texts.values()):
            kept.append(key)
    return [key for key in order if key in kept]


def labels(
    heads: Sequence[str], keys: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    """A label for each condition: its head, and more axes only where heads alone are ambiguous."""
    found = [safe(head).lstrip(".-") for head in heads]
    for key in keys:
        name = _short_key(key, keys)
        texts = [_cut(axis_text(row.get(key))) for row in rows]
        values: defaultdict[str, set[str]] = defaultdict(set)
        for label, text in zip(found, texts, strict=True):
            values[label].add(text)
        found = [
            label + _suffix(name, text) if len(values[label]) > 1 else label
            for label, text in zip(found, texts, strict=True)
        ]
    return _numbered(found)


def _suffix(name: str, text: str) -> str:
    if text == "none":
        return ""
    return f"_{safe(text)}" if _WORD.fullmatch(text) else f"_{safe(name)}={safe(text)}"


def safe(text: str) -> str:
    """The text with everything that a file name should not have replaced by ``-``."""
    return _UNSAFE.sub("-", text).rstrip("-")


def _cut(text: str, limit: int = 48) -> str:
    """The text, or its beginning with a hash of the rest where it is too long for a file name."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _short_key(key: str, keys: Sequence[str]) -> str:
    last = key.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == last for other in keys) == 1
    return last if alone else key


def _numbered(found: list[str]) -> list[str]:
    """Repeated labels get numbers; case is ignored, since some file systems do."""
    unique: list[str] = []
    taken: set[str] = set()
    for label in found:
        candidate = label
        for number in count(2):
            if candidate.casefold() not in taken:
                break
            candidate = f"{label}-{number}"
        taken.add(candidate.casefold())
        unique.append(candidate)
    return unique
