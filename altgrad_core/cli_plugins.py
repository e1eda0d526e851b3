"""The commands for authors of plugins: new, check. Heavy imports wait for their use."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from altgrad_core import completion
from altgrad_core._streams import stdout_to_stderr
from altgrad_core.cli_options import JsonOption
from altgrad_core.terminal import output, say

if TYPE_CHECKING:
    from altgrad_core.testing.inventory import Result


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (new, check):
        app.command()(command)


def new(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="format, optimizer, monitor, task, section, tracker or executor.",
            autocompletion=completion.plugin_kinds,
        ),
    ],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the package and of what it offers: my-posit.")
    ],
    into: Annotated[
        Path, typer.Option("--into", metavar="DIR", help="Where the package's folder is made.")
    ] = Path(),
) -> None:
    """Write a small package with a plugin of your own: it works as it is, and is yours to change."""
    from altgrad_core.registry.present import parse_kind
    from altgrad_core.scaffold.package import next_steps, write_package

    folder = write_package(parse_kind(kind), name, into)
    console = output()
    say(console, f"written: {folder}")
    for step in next_steps(parse_kind(kind), name, folder):
        say(console, f"  {step}")


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME...",
            help="Distributions or offers [default: all there are].",
            autocompletion=completion.origins,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run every conformance check on what is installed; exit code 1 where a rule is broken."""
    from altgrad_core.testing.inventory import results, subjects

    console = output()
    found: list[Result] = []
    with stdout_to_stderr() if as_json else nullcontext():  # plugins may print
        chosen = subjects(*(names or ()))
        for place, result in enumerate(results(chosen), start=1):
            found.append(result)
            if not as_json:
                say(console, f"[{place}/{len(chosen)}] {result}")
    bad = [one for one in found if one.verdict == "fault"]
    if as_json:
        json.dump(
            {"results": [one.to_json() for one in found], "ok": not bad}, sys.stdout, indent=2
        )
        print()
    else:
        skipped = sum(one.verdict == "skipped" for one in found)
        good = len(found) - len(bad) - skipped
        say(
            console,
            f"{good} keep the contract, {len(bad)} break it, {skipped} cannot be checked here.",
        )
    if bad:
        raise SystemExit(1)
