"""Text from outside (exceptions, plugins, data), made fit for a terminal, a record and a report."""

from __future__ import annotations

import re
import unicodedata

LIMIT = 2000
"""Characters of one message that are kept."""

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, erasing
    r"|[\]PX^_].*?(?:\x07|\x1b\\|\x9c)"  # OSC and other strings: titles, links, clipboard
    r"|[ -/]*[0-~])"
    r"|\x9b[0-?]*[ -/]*[@-~]",
    re.DOTALL,
)
_DIRECTIONS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def plain(text: str, limit: int | None = LIMIT) -> str:
    """``text`` without escape sequences, control characters and lone surrogates, cut to ``limit``.

    Line ends and tabs stay. What was cut is counted. None is no limit.
    """
    size = len(text)
    cut = limit is not None and size > limit
    if limit is not None and cut:
        text = text[: 2 * limit]  # what is stripped below makes room, within reason
    if not text.isprintable():
        text = _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
        text = "".join(character for character in text if _shown(character))
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if cut:
        text = f"{text[:limit]}… ({size:,} characters in all)"
    return text


def _shown(character: str) -> bool:
    if character in "\n\t":
        return True
    return unicodedata.category(character) != "Cc" and character not in _DIRECTIONS
