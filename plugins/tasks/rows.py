"""From a row of a data file to a :class:`Document`, with errors that name the row.

Schema (that of the Hugging Face data set ``NLP-AUEB/eurlex``): ``celex_id`` str, ``title`` str,
``text`` str, ``eurovoc_concepts`` list of str. ``celex_id`` may be missing; of ``title`` and
``text``, those that the setting ``text`` asks for must be there, and null or "" counts as empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.documents import Document

LABELS = "eurovoc_concepts"
TextChoice = Literal["title", "text", "both"]


def parse_row(row: Any, where: str, number: int, split: str, choice: TextChoice) -> Document:
    """The document in ``row``.

    ``where`` names the file and ``number`` the row, counted from 1. Raises :class:`UserError`.
    """
    if not isinstance(row, Mapping):
        raise _wrong(where, number, f"should be an object with named fields, found {_kind(row)}")
    identity = _string(row, "celex_id", where, number) or f"{split}:{number}"
    return Document(identity, _text(row, choice, where, number), _labels(row, where, number))


def compose(title: str, text: str) -> str:
    """Title and text as one: the title once if the text opens with it."""
    title, text = title.strip(), text.strip()
    if not title or text.startswith(title):
        return text
    return f"{title}\n{text}" if text else title


def _text(row: Mapping[str, Any], choice: TextChoice, where: str, number: int) -> str:
    wanted = ("title", "text") if choice == "both" else (choice,)
    if not any(name in row for name in wanted):
        raise _wrong(
            where,
            number,
            f"has no field {' or '.join(repr(n) for n in wanted)} (data.text is {choice!r}); "
            f"found {_names(row)}",
        )
    values = [_string(row, name, where, number) for name in wanted]
    return compose(*values) if choice == "both" else values[0].strip()


def _labels(row: Mapping[str, Any], where: str, number: int) -> tuple[str, ...]:
    if LABELS not in row:
        raise _wrong(where, number, f"has no field {LABELS!r}; found {_names(row)}")
    value = row[LABELS]
    if not isinstance(value, list):
        raise _wrong(where, number, f"{LABELS!r} should be a list of strings, found {_kind(value)}")
    for item in value:
        if not isinstance(item, str):
            raise _wrong(
                where, number, f"{LABELS!r} should be a list of strings, found {_kind(item)} in it"
            )
        _whole(item, LABELS, where, number)
    return tuple(sorted(set(value)))


def _string(row: Mapping[str, Any], name: str, where: str, number: int) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(where, number, f"{name!r} should be a string, found {_kind(value)}")
    _whole(value, name, where, number)
    return value


def _whole(text: str, name: str, where: str, number: int) -> None:
    """Refuse half of a character: JSON can write it (``\\ud83d`` alone), nothing can use it."""
    if not text.isprintable():  # quick, and false for every lone surrogate
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(text[error.start]):04x}"
            raise _wrong(
                where,
                number,
                f"{name!r} holds half of a character ({half}) at position {error.start}: write the "
                f"whole character, or leave it out",
            ) from error


def _wrong(where: str, number: int, problem: str) -> UserError:
    separator = ":" if problem.startswith("'") else ""
    return UserError(f"file {where}, row {number}{separator} {problem}")


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in row) or "none"
