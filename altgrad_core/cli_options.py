"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from altgrad_core import completion

SuiteArgument = Annotated[
    str,
    typer.Argument(
        metavar="SUITE",
        help="A suite file, or the name of a shipped suite.",
        autocompletion=completion.suites,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting: training.max_steps=50.",
        autocompletion=completion.keys,
    ),
]
RunsOption = Annotated[
    str,
    typer.Option(
        "--runs", metavar="DIR", help="Where run directories are: a folder, or a URL (s3://…)."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
