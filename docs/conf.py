"""The documentation as a site: ``make docs``. What is generated is made when a build starts, by ``_generate.py``."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import _generate  # noqa: E402
from sphinx.util import logging  # noqa: E402

project = "altgrad-bench"
author = copyright = "the altgrad-bench developers"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_site"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True
html_theme = "furo"
html_title = "altgrad-bench"
html_show_sourcelink = False

_log = logging.getLogger(__name__)
_BESIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+([^)]+)\)")


def _links_out_of_the_docs(app, docname, source):  # type: ignore[no-untyped-def]
    """A link to a file of the repository that is no page: on the site it is the name of the file."""

    def shown(link: re.Match[str]) -> str:
        text, path = link.groups()
        if (DOCS / path.partition("#")[0]).exists():  # a page, from a folder below
            return link[0]
        if not (DOCS.parent / path).exists():
            _log.warning("there is no %s in the repository", path, location=docname)
        return text if path in text else f"{text} (`{path}`)"

    source[0] = _BESIDE.sub(shown, source[0])


def _plain_bars(app, what, name, obj, options, lines):  # type: ignore[no-untyped-def]
    lines[:] = _generate.plain_bars("\n".join(lines)).split("\n")


def setup(app):  # type: ignore[no-untyped-def]
    """Sphinx calls this."""
    app.connect("builder-inited", lambda app: _generate.write(DOCS / "generated"))
    app.connect("autodoc-process-docstring", _plain_bars)
    app.connect("source-read", _links_out_of_the_docs)
