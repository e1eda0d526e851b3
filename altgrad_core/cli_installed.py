"""The commands that look at what is installed: show, schema, doctor. Heavy imports wait for their use."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Annotated

import typer

from altgrad_core import completion
from altgrad_core._streams import stdout_to_stderr
from altgrad_core.cli_options import JsonOption, SetOption
from altgrad_core.terminal import output


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (show, schema, doctor):
        app.command()(command)


def show(
    kind: Annotated[
        str,
        typer.Argument(
            help="format, optimizer, monitor, task, …, or suite.", autocompletion=completion.kinds
        ),
    ],
    name: Annotated[
        str, typer.Argument(help="Its name, e.g. e3m4.", autocompletion=completion.names)
    ],
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one plugin or suite: its settings and facts; for a format, its grid as a picture."""
    from altgrad_core.planning.present import described_suite, print_suite
    from altgrad_core.registry.present import described, print_offer

    settings = set_ or ()
    is_suite = kind in ("suite", "suites")
    if as_json:
        with stdout_to_stderr():  # plugins may print
            found = described_suite(name, settings) if is_suite else described(kind, name, settings)
        print(json.dumps(found, indent=2))
    elif is_suite:
        print_suite(name, settings, output())
    else:
        print_offer(kind, name, settings, output())


def schema() -> None:
    """Print the JSON Schema of suite files, with the settings of every plugin that is installed."""
    from altgrad_core.planning.schema import suite_schema
    from altgrad_core.registry.catalog import catalog

    with stdout_to_stderr():  # plugins may print
        found = suite_schema(catalog())
    print(json.dumps(found, indent=1))


def doctor(as_json: JsonOption = False) -> None:
    """Look at this machine: what is installed, what is missing and how to mend it, what would run where.

    Exit code 1 if something that is needed is missing or broken.
    """
    from altgrad_core.doctor import examine, print_findings

    with stdout_to_stderr() if as_json else nullcontext():  # plugins may print
        found = examine()
    if as_json:
        print(json.dumps([one.to_json() for one in found], indent=2))
    else:
        print_findings(found, output())
    if any(one.state == "broken" for one in found):
        raise SystemExit(1)
