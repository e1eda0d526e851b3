"""A report's document as one HTML page that needs nothing else: styles, script and figures inline.

The page is whole without its script, which adds buttons that switch lines on and off, sorting and
highlighting. A content security policy in the page admits this script alone, by its hash, and no
request to anywhere; :class:`Live` opens it for a page that is served and updates itself.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from altgrad_core.analysis.document import (
    Block,
    Bullets,
    Code,
    Document,
    Figure,
    HeatMap,
    Paragraph,
    ParallelCoordinates,
    Section,
    Table,
)
from altgrad_core.analysis.html_figures import figure_html, heat_html, parallel_html
from altgrad_core.analysis.html_tables import table_html

_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src '{script}'; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class Live:
    """What a served page has more: HTML above the report, and a script that may ask its server.

    ``version`` names the state of the results that the page shows.
    """

    banner: str
    script: str
    version: str


def render_html(document: Document, live: Live | None = None) -> str:
    """The whole page. Everything that came from a file or a user is escaped."""
    template = Template((_HERE / "page.html").read_text(encoding="utf-8"))
    script = _script(live)
    return template.substitute(
        policy=_policy(script, connect="'none'" if live is None else "'self'"),
        title=escape(document.title),
        style=(_HERE / "report.css").read_text(encoding="utf-8"),
        contents="\n".join(_contents(document.sections)),
        banner="" if live is None else live.banner,
        version="" if live is None else escape(live.version),
        opening="\n".join(map(_block, document.opening)),
        sections="\n".join(map(_section, document.sections)),
        script=script,
    )


def _script(live: Live | None) -> str:
    own = (_HERE / "report.js").read_text(encoding="utf-8")
    return own if live is None else f"{own}\n{live.script}"


def _policy(script: str, connect: str) -> str:
    """The content security policy of a page with one script, of which the hash is admitted."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return escape(_POLICY.format(script=f"sha256-{digest}", connect=connect), quote=False)


def _contents(sections: Sequence[Section]) -> Iterator[str]:
    """A link to each section; of ``Topic: a question?`` the topic, where that names one section."""
    topics = Counter(section.title.partition(":")[0] for section in sections)
    for section in sections:
        topic = section.title.partition(":")[0]
        text = topic if topics[topic] == 1 else section.title
        yield f'<li><a href="#{escape(section.anchor)}">{escape(text)}</a></li>'


def _section(section: Section) -> str:
    body = "\n".join(map(_block, section.blocks))
    anchor = escape(section.anchor)
    return (
        f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{escape(section.title)}</h2>\n'
        f"{body}\n</section>"
    )


def _block(block: Block) -> str:
    match block:
        case Paragraph(text=text, lead=lead):
            return f'<p class="lead">{escape(text)}</p>' if lead else f"<p>{escape(text)}</p>"
        case Bullets(items=items):
            return f"<ul>\n{_joined('li', items)}\n</ul>"
        case Code(text=text):
            return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'
        case Figure():
            return figure_html(block)
        case HeatMap():
            return heat_html(block)
        case ParallelCoordinates():
            return parallel_html(block)
        case Table():
            return table_html(block)


def _joined(tag: str, items: Iterable[str]) -> str:
    return "\n".join(f"<{tag}>{escape(item)}</{tag}>" for item in items)
