"""One YAML value, read as what a person means by it; what could mean something else is refused.

YAML 1.1 reads ``010`` as 8, ``1:30`` as 90, ``no`` as false and ``1_000`` as 1000; other readers do
not. Nobody who writes a suite should have to know, so these are errors that say what to write.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from altgrad_core.errors import UserError

_TEXT = "tag:yaml.org,2002:str"
_LARGEST = 2**63
_AMBIGUOUS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i:yes|no|on|off)"), "true or false"),
    (
        re.compile(r"[-+]?0[oO]?[0-9_]+(\.[0-9_]*)?([eE][-+]?[0-9]+)?"),
        "the number without the zero",
    ),
    (re.compile(r"[-+]?0[bx][0-9a-fA-F_]+"), "a decimal number"),
    (re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"), "a decimal number"),
    (re.compile(r"[-+]?[0-9._]*_[0-9._]*([eE][-+]?[0-9]+)?"), "the number without '_'"),
)
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


def scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode, source: str) -> Any:
    """The value of a scalar node: text, number, true, false or null.

    Raises ``UserError``, with the line, for what is ambiguous, tagged as something that it is not, or
    beyond what a setting can hold.
    """
    where = f"{source}, line {node.start_mark.line + 1}"
    text = str(node.value)
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{where}: a text with a NUL or half a surrogate pair cannot be used")
    if node.style is None and (node.tag != _TEXT or text.lower().startswith(("0o", "+0o", "-0o"))):
        _refuse_ambiguous(text, where)
    try:
        value = loader.construct_object(node)
    except (ValueError, OverflowError, LookupError) as error:  # a tag on what it does not fit
        kind = _KINDS.get(node.tag.rpartition(":")[2], f"what its YAML tag {node.tag} says")
        raise UserError(f"{where}: {_short(text)} cannot be read as {kind}") from error
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise UserError(f"{where}: {_short(text)} is too large for a whole number of 64 bits")
    if value is not None and not isinstance(value, (str, bool, int, float)):
        raise UserError(f"{where}: the YAML tag {node.tag} has no meaning here")
    return value


def _refuse_ambiguous(text: str, where: str) -> None:
    for pattern, instead in _AMBIGUOUS:
        if pattern.fullmatch(text):
            raise UserError(
                f"{where}: {_short(text)} means different things to different readers of YAML: write "
                f"{instead}, or put it in quotes if it is a text"
            )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}…")
