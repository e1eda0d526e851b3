"""A document as Markdown, and as one HTML page that needs nothing else.

The page holds its styles, its charts as pictures and as data, and its script; it is whole without the
script, which makes the charts answer and sorts tables. A content security policy in the page admits
this script alone, by its hash, and no request to anywhere; :class:`Live` opens it for a page that is
served and updates itself.

Texts are plain, but for what stands between `backticks`, which is set as code.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from altgrad_core._text import plain
from altgrad_core.interfaces.blocks import Cell
from altgrad_core.report.document import Document, Part, to_show
from altgrad_core.report.pictures import page_spec, vega_bundle

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = "figures"
"""Folder of the image files, beside the Markdown file."""
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src '{script}'; "
    "connect-src {connect}; base-uri 'none'; form-action 'none'"
)
_CODE = re.compile(r"`([^`\n]+)`")
_UNDERSCORE = re.compile(r"_(?=.)")


@dataclass(frozen=True)
class Live:
    """What a served page has more: the progress above the report, and a script that may ask its server.

    ``version`` names the state of the results that the page shows.
    """

    progress: Markup
    script: str
    version: str


def render_html(
    document: Document,
    folder: Path,
    pictures: Mapping[str, str] | None = None,
    live: Live | None = None,
) -> str:
    """The whole page, which will be in ``folder``: links to files are relative to it.

    ``pictures`` are the charts as SVG, by name, for readers without script.
    """
    script = _script(document, live)
    found = {
        name: base64.b64encode(svg.encode()).decode() for name, svg in (pictures or {}).items()
    }
    return _environment(html=True).get_template("report.html.j2").render(
        document=document,
        contents=_contents(document.parts),
        pictures=found,
        address=partial(address, folder=folder),
        live=live,
        policy=Markup(_policy(script, connect="'none'" if live is None else "'self'")),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
    )  # fmt: skip


def fragment(template: str, **values: object) -> str:
    """Part of a page."""
    return _environment(html=True).get_template(template).render(**values)


def render_markdown(document: Document, folder: Path) -> str:
    """The document in GitHub's dialect, with its figures as files beside it."""
    template = _environment(html=False).get_template("report.md.j2")
    text = template.render(document=document, address=partial(address, folder=folder))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def address(cell: Cell, folder: Path) -> str | None:
    """Where a cell leads, as a page in ``folder`` writes it; a folder ends in a slash.

    None for what is not there, as the run directories of results that were read from an archive.
    """
    if not cell.href:
        return None
    if cell.href.startswith(("https://", "http://")):
        return quote(cell.href, safe="/:%?=&#")
    place = Path(cell.href).absolute()
    if not os.path.exists(place):  # noqa: PTH110 - never raises
        return None
    found = Path(os.path.relpath(place, folder.absolute())).as_posix()
    return quote(f"{found}/" if os.path.isdir(place) else found, safe="/")  # noqa: PTH112 - never raises


def markdown_text(text: object) -> str:
    """Text on one line that Markdown shows as it is; what stands in backticks is a code span."""
    line = plain(" ".join(str(text).split()), None)
    return _by_spans(line, _escaped, _code_span)


def html_text(text: object) -> Markup:
    """Escaped text; what stands in backticks is code."""
    line = plain(str(text), None)
    return Markup(_by_spans(line, lambda t: str(escape(t)), lambda t: f"<code>{escape(t)}</code>"))


def breakable(text: object) -> Markup:
    """Escaped text that may be broken after an underscore."""
    return Markup(_UNDERSCORE.sub("_<wbr>", str(html_text(text))))


def _by_spans(text: str, plain: Callable[[str], str], code: Callable[[str], str]) -> str:
    """The text with each of its parts treated: every second one was between backticks."""
    parts = _CODE.split(text)
    return "".join(code(part) if place % 2 else plain(part) for place, part in enumerate(parts))


_SPECIAL = re.compile(
    r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^(?:[-+#=](?=[-+#=\s]|$)|\d+(?=[.)]\s))"
)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def _escaped(text: str) -> str:
    """Only what Markdown would read: an underscore inside a word means nothing to it."""
    text = _SPECIAL.sub(lambda m: m[0] + "\\" if m[0].isdigit() else f"\\{m[0]}", text)
    return re.sub("[&<>]", lambda m: _ENTITIES[m[0]], text)


def _code_span(text: str) -> str:
    """A code span; where a bar would end the cell of a table, as HTML."""
    if "|" in text:
        return f"<code>{escape(text)}</code>".replace("|", "&#124;")
    return f"`{text}`"


def _fence(text: str) -> str:
    """Backticks, more than any run of them inside."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1)


def _contents(parts: Iterable[Part]) -> list[tuple[str, str]]:
    """Anchor and text of a link to each part; of ``Topic: a question?`` the topic, if that is one's own."""
    known = list(parts)
    topics = Counter(part.title.partition(":")[0] for part in known)
    return [
        (part.anchor, topic if topics[topic := part.title.partition(":")[0]] == 1 else part.title)
        for part in known
    ]


def _script(document: Document, live: Live | None) -> str:
    parts = [(TEMPLATES / "report.js").read_text(encoding="utf-8")]
    if live is not None:
        parts.append(live.script)
    if live is not None or any(True for _ in document.charts):
        parts.insert(0, vega_bundle())
    return "\n".join(parts)


def _policy(script: str, connect: str) -> str:
    """The content security policy of a page with one script, of which the hash is admitted."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _POLICY.format(script=f"sha256-{digest}", connect=connect)


@cache
def _environment(*, html: bool) -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    filters: dict[str, Any] = {
        "text": html_text if html else markdown_text,
        "breakable": breakable,
        "fence": _fence,
        "to_show": to_show,
        "kind": lambda block: type(block).__name__.lower(),
        "page_spec": page_spec,
    }
    made.filters.update(filters)
    return made
