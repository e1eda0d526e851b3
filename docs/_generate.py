"""Pages that are made from the code: suite reference, commands, plugin contract, and one for each built-in plugin.

``conf.py`` calls :func:`write` when a build starts. The pages are Markdown for MyST and are not committed.
"""

from __future__ import annotations

import ast
import io
import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from rich.console import Console

import altgrad_core.testing
from altgrad_core.cli import app
from altgrad_core.interfaces.plugin import Offer
from altgrad_core.planning.keys import Key, setting_keys
from altgrad_core.planning.schema import suite_schema
from altgrad_core.planning.suite import described_suites, shipped_suites
from altgrad_core.registry.catalog import Catalog, catalog
from altgrad_core.registry.discovery import Registered
from altgrad_core.registry.hookspecs import HOOKS
from altgrad_core.registry.present import print_offer, setting_rows

CONTRACT = (
    *("plugin", "metric", "format", "grid", "placement", "geometry", "optimizer", "monitor"),
    *("task", "section", "blocks", "executor", "tracker"),
)
"""The modules of ``altgrad_core.interfaces``, in the order of reading."""
KIND_PAGES = {
    "format": "formats",
    "optimizer": "optimizers",
    "monitor": "monitors",
    "task": "data",
    "section": "report",
    "executor": "running",
    "tracker": "monitors",
}
"""The hand-written page of each kind."""
SECTIONS = {
    "": "Structure",
    "contrast": "What is compared",
    "tune": "Learning rates",
    "data": "Data",
    "model": "Model",
    "training": "Training",
    "quantization": "Quantisation",
    "optimizer": "Optimizer",
    "monitors": "Monitors",
    "trackers": "Trackers",
}
_LONGEST = 60
"""Characters of a default that are shown."""


def write(folder: Path) -> None:
    """Write every generated page anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in pages():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def pages() -> Iterator[tuple[str, str]]:
    """Name (below ``generated/``, without suffix) and text of each page."""
    yield "suite", suite_reference()
    yield "commands", commands()
    yield "contract", contract()
    yield "api", api()
    yield "suites", suites()
    yield from plugins()


def ours() -> Catalog:
    """The built-in plugins, whatever else is installed."""
    return Catalog(one for one in catalog().registered if one.distribution == "altgrad-bench")


def suite_reference() -> str:
    """Every key of a suite file, from the schema of suite files."""
    keys = setting_keys(suite_schema(ours()))
    parts = [
        "# Suite reference",
        "Every key of a suite file, from the same schema that editors use. How they go together: "
        "[Suite files](../suites.md). Keys are written with dots, as `--set` and `matrix` take them; in the file "
        "each part is a mapping. Settings of monitors, trackers and optimizers stand on the pages of these; here are "
        "those of all of them together.",
    ]
    for section, title in SECTIONS.items():
        mine = {key: one for key, one in keys.items() if _section(key) == section}
        assert mine, section
        parts += [
            f"## {title}",
            _table(_HEADINGS, (_key_row(key, one) for key, one in mine.items())),
        ]
    return _page(parts)


_HEADINGS = ("key", "type", "default", "meaning")


def _section(key: str) -> str:
    first, dot, _ = key.partition(".")
    return first if dot else ""


def _key_row(key: str, one: Key) -> tuple[str, ...]:
    words = [value for value in one.values if value != "null"]
    said = ", ".join(f"`{value}`" for value in words)
    meaning = f"{one.meaning} ({said})" if one.meaning and said else one.meaning or said
    return f"`{key}`", one.types, _default(one.default), meaning


def _default(value: Any) -> str:
    if value is None:
        return ""
    text = json.dumps(value, default=str)
    return f"`{text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}`"


def commands() -> str:
    """The help of every command."""
    parts = [
        "# Commands",
        "What `altgrad-bench COMMAND --help` says. Errors of yours are one paragraph and exit code 2; `--traceback`, "
        "anywhere, shows where one came from.",
    ]
    for path, text in helps():
        title = " ".join(path)
        parts += [f"{'#' * (len(path) + 1 if len(path) > 1 else 2)} {title}", _text(text)]
    return _page(parts)


def helps() -> Iterator[tuple[list[str], str]]:
    """Each command, as its words, and its help."""
    from typer.testing import CliRunner

    def below(command: Any, path: list[str]) -> Iterator[tuple[list[str], str]]:
        said = CliRunner().invoke(app, [*path[1:], "--help"], prog_name="altgrad-bench")
        yield path, said.output
        for name, inner in getattr(command, "commands", {}).items():
            yield from below(inner, [*path, name])

    yield from below(typer.main.get_command(app), ["altgrad-bench"])


def contract() -> str:
    """Hooks, interfaces and conformance checks with every signature, by autodoc."""
    parts = [
        "# The plugin contract",
        "What a plugin may rely on, and what it must be, from the code itself. How to write one: [](../plugins.md). "
        "How the contract changes: CONTRIBUTING.md of the repository.",
        "## Hooks",
        _table(
            ("hook", "of the kind", "page"),
            (
                (f"`{hook}()`", kind, f"[{page}](../{page}.md)")
                for kind, hook in HOOKS.items()
                for page in [KIND_PAGES[kind]]
            ),
        ),
        _automodule("altgrad_core.registry.hookspecs"),
        "## Interfaces",
    ]
    for name in CONTRACT:
        parts += [
            f"### altgrad_core.interfaces.{name}",
            _automodule(f"altgrad_core.interfaces.{name}"),
        ]
    parts.append("## Checks")
    parts += _exported(altgrad_core.testing, "###")
    return _page(parts)


def _exported(module: ModuleType, level: str) -> Iterator[str]:
    """A heading and the documentation of each class and function that the module exports."""
    for name in sorted(module.__all__):
        found = getattr(module, name)
        if callable(found) and not name.startswith("_"):
            directive = "autoclass" if isinstance(found, type) else "autofunction"
            yield f"{level} {name}"
            yield _rst(f".. {directive}:: {module.__name__}.{name}\n   :no-index:")


def api() -> str:
    """What ``altgrad_core`` exports."""
    said = "What `import altgrad_core` offers. A loop of your own: [](../library.md)."
    return _page(["# The library", said, *_exported(altgrad_core, "##")])


def suites() -> str:
    """The shipped suites, as files."""
    parts = [
        "# Shipped suites",
        "`altgrad-bench plan NAME` shows the cells of one, `run NAME` runs it.",
    ]
    for row in described_suites():
        text = shipped_suites()[row["name"]].read_text(encoding="utf-8")
        body = text.partition("\n")[2]  # the line for editors left out
        parts += [f"## {row['name']}", row["description"], f"```yaml\n{body.rstrip()}\n```"]
    return _page(parts)


def plugins() -> Iterator[tuple[str, str]]:
    """An overview of the built-in plugins, and a page for each."""
    found = ours()
    parts = [
        "# Built-in plugins",
        "They come through the same door as anyone else's; `altgrad-bench list` shows those that are installed.",
    ]
    for kind in HOOKS:
        entries = list(found.offers(kind).values())
        rows = [
            (f"[{one.offer.name}](plugins/{_slug(one)}.md)", one.offer.summary) for one in entries
        ]
        parts += [f"## {kind.capitalize()}s", _table(("name", "what it is"), rows)]
        names = "\n".join(f"plugins/{_slug(one)}" for one in entries)
        parts.append(f"```{{toctree}}\n:hidden:\n\n{names}\n```")
        for one in entries:
            yield f"plugins/{_slug(one)}", _plugin(one)
    yield "plugins", _page(parts)


def _slug(one: Registered) -> str:
    return f"{one.kind}-{one.offer.name}"


def _plugin(one: Registered) -> str:
    offer = one.offer
    page = KIND_PAGES[one.kind]
    parts = [
        f"# {offer.name}",
        f"{offer.summary[:1].upper()}{offer.summary[1:]}.",
        f"A built-in {one.kind}; see also [](../../{page}.md). The code: `{offer.target}`.",
    ]
    needs = [f"{need.kind} {need.name}".strip() for need in offer.needs]
    if needs:
        parts.append(f"Needs: {', '.join(needs)}.")
    rows = [
        (
            f"`{row['name']}`",
            str(row["type"]),
            "required" if row["required"] else _default(row["default"]) or "null",
            row["meaning"],
        )
        for row in setting_rows(offer.settings)
    ]
    settings = _table(("name", "type", "default", "meaning"), rows) if rows else "It has none."
    parts += ["## Settings", settings]
    if one.kind == "format" and not any(row["required"] for row in setting_rows(offer.settings)):
        parts += ["## Its grid", _text(_card(offer.name))]
    if offer.metrics:
        parts += ["## Metrics", _metrics(offer)]
    if said := _docstring(offer.target.partition(":")[0]):
        parts += ["## From the code", _rst(plain_bars(said))]
    return _page(parts)


def _metrics(offer: Offer) -> str:
    rows = (
        (f"`{one.name}`", one.label, f"{one.direction} is better", "yes" if one.primary else "")
        for one in offer.metrics
    )
    return _table(("name", "label", "direction", "decides"), rows)


def _card(name: str) -> str:
    """What ``altgrad-bench show format`` prints, from the facts on."""
    out = io.StringIO()
    print_offer("format", name, (), Console(file=out, width=100))
    return out.getvalue().partition("bits\n")[2]


def _automodule(name: str) -> str:
    return _rst(f".. automodule:: {name}\n   :no-index:")


def _docstring(name: str) -> str:
    """That of a module, which is not imported: some would bring large libraries."""
    spec = find_spec(name)
    assert spec is not None
    text = Path(str(spec.origin)).read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(text)) or ""


def plain_bars(text: str) -> str:
    """The text with ``|w|``, which is a substitution in reStructuredText, as a magnitude again."""
    parts = text.split("``")
    parts[::2] = [part.replace("|", "∣") for part in parts[::2]]
    return "``".join(parts)


def _rst(text: str) -> str:
    return f"```{{eval-rst}}\n{text}\n```"


def _text(text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
    return f"```text\n{textwrap.dedent(lines)}\n```"


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(headings)]
    cells += [["---"] * len(cells[0]), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _cell(text: str) -> str:
    escaped = text.replace("|", "\\|").replace("``", "`")
    return " ".join(escaped.split())


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(parts) + "\n"
