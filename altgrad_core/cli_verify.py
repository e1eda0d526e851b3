"""``altgrad-bench verify``: is a finished run what it says it is?"""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from altgrad_core import completion
from altgrad_core._streams import stdout_to_stderr
from altgrad_core.cli_options import JsonOption, RunsOption
from altgrad_core.cli_results import runs_folder
from altgrad_core.errors import UserError
from altgrad_core.terminal import output, say

if TYPE_CHECKING:
    from altgrad_core.execution.verify import Verdict
    from altgrad_core.results.run_directory import RunDirectory

_PREFIX = re.compile(r"[0-9a-f]{3,12}")


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(verify)


def verify(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run directory, the beginning of a run's id, or with --all a suite.",
            autocompletion=completion.run_folders,
        ),
    ],
    every: Annotated[
        bool, typer.Option("--all", help="Every run of the suite that has a result.")
    ] = False,
    runs: RunsOption = "runs",
    device: Annotated[str, typer.Option(help="auto: the recorded one.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads [default: as recorded].")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.0, metavar="MINUTES", help="Limit for each run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a finished cell again, elsewhere, and say whether every number is the same to its last bit."""
    from rich.console import Console

    from altgrad_core.execution.interruption import Interrupted
    from altgrad_core.execution.progress import progress_display
    from altgrad_core.execution.verify import verify_options, verify_runs

    directories = _finished_of(run, runs) if every else [_one(run, runs)]
    options = verify_options(device, threads, timeout * 60 if timeout is not None else None)
    console = Console(stderr=True) if as_json else output()
    try:
        with (
            stdout_to_stderr() if as_json else nullcontext(),
            progress_display(console) as display,
        ):
            verdicts = verify_runs(directories, options, display)
    except Interrupted as end:
        raise SystemExit(128 + end.number) from end
    if as_json:
        print(json.dumps([one.to_json() for one in verdicts], indent=2))
    else:
        for one in verdicts:
            for line in verdict_lines(one):
                say(console, line)
    if not all(one.identical for one in verdicts):
        raise SystemExit(1)


def verdict_lines(verdict: Verdict) -> list[str]:
    """What is said of one run."""
    name = f"{verdict.label} ({verdict.id})"
    notes = [f"  note: {note}" for note in verdict.notes]
    if verdict.failed:
        return [f"not verified: {name} did not run to its end again: {verdict.failed}", *notes]
    if verdict.first is None:
        return [f"bit-identical: {name}", *notes]
    first = verdict.first
    lines = [
        f"DIFFERENT: {name}, in {verdict.count} records or arrays",
        f"  first in {first.where}: {first.recorded} on record, {first.again} again",
    ]
    for what, (was, now) in verdict.explained_by.items():
        lines.append(f"  not as recorded: {what} was {was}, and is {now}")
    if not verdict.explained_by:
        lines.append(
            "  versions, commit, device, threads and data are as recorded, and explain nothing: an "
            "operation without a deterministic kernel, code changed without a commit, or other hardware"
        )
    return [*lines, *notes]


def _one(given: str, runs: str) -> RunDirectory:
    """The run that is meant. Raises ``UserError`` if none is, or several are."""
    from altgrad_core.results.remote.copy import local_copy
    from altgrad_core.results.remote.url import folder_of, url_of
    from altgrad_core.results.run_directory import RunDirectory

    if url := url_of(given):
        return RunDirectory(local_copy(url))
    if (folder_of(given) / "spec.yaml").is_file():
        return RunDirectory(folder_of(given))
    found = []
    within = local_copy(url) if (url := url_of(runs)) else folder_of(runs)
    if _PREFIX.fullmatch(given):
        found = sorted(p for p in within.glob(f"*/{given}*") if (p / "spec.yaml").is_file())
    if len(found) == 1:
        return RunDirectory(found[0])
    if found:
        raise UserError(f"{len(found)} runs begin with {given}: {', '.join(map(str, found[:5]))}.")
    raise UserError(
        f"no run {given!r} found: it is neither a run directory (with spec.yaml), nor the beginning of "
        f"the id of a run in {runs} (three hex digits or more). For all runs of a suite add --all."
    )


def _finished_of(suite: str, runs: str) -> list[RunDirectory]:
    from altgrad_core.results.run_directory import FINISHED, RunDirectory
    from altgrad_core.results.stored import read_plan

    folder = runs_folder(suite, runs)
    ids = dict.fromkeys(cell.id for cell in read_plan(folder).cells if cell.id is not None)
    found = [RunDirectory(folder / run_id) for run_id in ids]
    finished = [one for one in found if one.status().status in FINISHED]
    if not finished:
        raise UserError(f"{folder} has no run with a result to verify.")
    return finished
