"""Charts as they travel: pictures that stand by themselves, and the script that makes them answer."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from altgrad_core._files import default_cache, write_text
from altgrad_core._text import plain
from altgrad_core.interfaces.blocks import Chart

VEGA_LITE = "6.4"
"""The version of the grammar that charts are written in."""

_CLIP = re.compile(r'(id="clip|url\(#clip)(\d+)')
_STYLE = (
    "<style>svg{color:#1f2328;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#e6edf3;background:#0f1419}}</style>"
)


def page_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The specification with each data set as columns and rows, half as long; ``report.js`` undoes it."""
    found: dict[str, Any] = _copied(spec)
    for name, records in found.get("datasets", {}).items():
        columns = list(dict.fromkeys(key for record in records for key in record))
        rows = [[_short(record.get(column)) for column in columns] for record in records]
        found["datasets"][name] = {"columns": columns, "rows": rows}
    return found


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def static_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The specification without its layers that only a page can use, and without check boxes."""
    found: dict[str, Any] = _copied(spec)
    found.setdefault("padding", {"left": 16, "right": 16, "top": 5, "bottom": 5})  # for other fonts
    for param in found.get("params", ()):
        param.pop("bind", None)
    for view in (found, found.get("spec", {})):
        if "layer" in view:
            layers = view["layer"]
            view["layer"] = [v for v in layers if not v.get("name", "").startswith("hover")]
    return found


def _copied(part: Any) -> Any:
    """The same JSON data; characters that XML does not know would end the process that draws."""
    if isinstance(part, Mapping):
        return {_copied(key): _copied(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_copied(value) for value in part]
    return plain(part, None) if isinstance(part, str) else part


def to_svg(chart: Chart) -> str:
    """A chart as an SVG file that follows its reader's light or dark setting.

    Raises ``ValueError`` where the specification is wrong.
    """
    import vl_convert

    svg = vl_convert.vegalite_to_svg(static_spec(chart.spec), vl_version=VEGA_LITE)
    numbers: dict[str, int] = {}  # of clip paths, which are counted over the life of the process
    svg = _CLIP.sub(lambda m: f"{m[1]}{numbers.setdefault(m[2], len(numbers))}", svg)
    head, end, rest = svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}{end}{_STYLE}{rest}\n'


def bundle_file() -> Path:
    """Where :func:`vega_bundle` is kept."""
    return default_cache() / f"vega-{version('vl-convert-python')}-{VEGA_LITE}.js"


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script that defines ``window.vegaEmbed``.

    Making it takes seconds, so it is kept in the cache folder, where there is one to write to.
    """
    import vl_convert

    kept = bundle_file()
    with contextlib.suppress(OSError):
        return kept.read_text(encoding="utf-8")
    script = "window.vegaEmbed = vegaEmbed;"
    bundle = vl_convert.javascript_bundle(script, vl_version=VEGA_LITE)
    bundle = f"(function () {{{bundle}\n}}).call(window);"  # its names are no business of the page
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, bundle)
    return bundle
