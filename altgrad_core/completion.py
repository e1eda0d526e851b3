"""What a shell may complete: plugins, suites, folders of runs, keys and values of ``--set``. Free of torch.

These are typer's ``autocompletion`` callbacks. Each answers with what begins as the user has typed; with no answer
the shell completes file names.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import typer

Item = tuple[str, str]
"""A word, and what it is in a line."""


def suites(incomplete: str) -> list[Item]:
    """Shipped suites, and suite files here."""
    from altgrad_core.planning.suite import shipped_suites

    files = (str(file) for file in sorted(Path().glob("*.y*ml")))
    named = [(name, "shipped suite") for name in shipped_suites()]
    return _beginning(incomplete, [*named, *((file, "suite file") for file in files)])


def run_folders(ctx: typer.Context, incomplete: str) -> list[Item]:
    """Suites of which there are runs, below ``--runs``; archives here."""
    folder = Path(ctx.params.get("runs") or "runs")
    made = (plan.parent for plan in sorted(folder.glob("*/plan.json")))
    archives = [(str(file), "archive") for file in sorted(Path().glob("*.zip"))]
    return _beginning(incomplete, [*((one.name, str(one)) for one in made), *archives])


def plugin_kinds(incomplete: str) -> list[Item]:
    """The kinds of plugins."""
    from altgrad_core.interfaces.plugin import Kind

    return _beginning(
        incomplete, ((kind, f"plugins of the kind {kind}") for kind in get_args(Kind))
    )


def kinds(incomplete: str) -> list[Item]:
    """The kinds of plugins, and ``suite``."""
    return [*plugin_kinds(incomplete), *_beginning(incomplete, [("suite", "a suite")])]


def plural_kinds(incomplete: str) -> list[Item]:
    """The same for ``list``: ``formats`` and so on."""
    return _beginning(incomplete, [(f"{kind}s", f"all {kind}s") for kind, _ in kinds("")])


def names(ctx: typer.Context, incomplete: str) -> list[Item]:
    """The plugins of the kind that stands before."""
    kind = str(ctx.params.get("kind") or "").removesuffix("s")
    return suites(incomplete) if kind == "suite" else _offers(kind, incomplete)


def optimizers(incomplete: str) -> list[Item]:
    """The optimizers."""
    return _offers("optimizer", incomplete)


def formats(incomplete: str) -> list[Item]:
    """The formats."""
    return _offers("format", incomplete)


def origins(incomplete: str) -> list[Item]:
    """The distributions that offer something, and the names of what they offer."""
    from altgrad_core.registry.catalog import catalog

    found = {one.distribution: f"all of {one.origin}" for one in catalog().registered}
    offers = ((one.offer.name, f"{one.kind} of {one.origin}") for one in catalog().registered)
    return _beginning(incomplete, [*found.items(), *offers])


def executors(incomplete: str) -> list[Item]:
    """The executors."""
    return _offers("executor", incomplete)


def keys(incomplete: str) -> list[Item]:
    """``key=`` for each setting that ``--set`` takes, ``key=value`` where the values are known."""
    from altgrad_core.planning.keys import setting_keys
    from altgrad_core.planning.schema import suite_schema
    from altgrad_core.registry.catalog import catalog

    found = setting_keys(suite_schema(catalog()))
    key, equals, _ = incomplete.partition("=")
    if equals:
        said = found.get(key.removeprefix("matrix."))
        values = said.values if said else ()
        return _beginning(incomplete, ((f"{key}={value}", "") for value in values))
    axis = "matrix." if incomplete.startswith("matrix.") else ""
    return _beginning(incomplete, ((f"{axis}{key}=", one.meaning) for key, one in found.items()))


def _offers(kind: str, incomplete: str) -> list[Item]:
    from altgrad_core.registry.catalog import catalog

    registered = catalog().registered
    return _beginning(
        incomplete, ((one.offer.name, one.offer.summary) for one in registered if one.kind == kind)
    )


def _beginning(incomplete: str, items: Iterable[Item]) -> list[Item]:
    return [item for item in items if item[0].startswith(incomplete)]
