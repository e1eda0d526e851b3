"""The command line: parse, call, print. Nothing here imports torch; ``--help`` and ``plan`` stay quick."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from altgrad_core import (
    __version__,
    cli_installed,
    cli_plugins,
    cli_results,
    cli_verify,
    completion,
)
from altgrad_core._streams import safe_streams, stdout_to_stderr
from altgrad_core._text import plain
from altgrad_core.cli_options import DeviceOption, JsonOption, RunsOption, SetOption, SuiteArgument
from altgrad_core.cli_speed import speed
from altgrad_core.errors import UserError
from altgrad_core.terminal import output, say

if TYPE_CHECKING:  # rich takes as long to import as a completion may take
    from rich.console import Console

app = typer.Typer(
    name="altgrad-bench",
    help="Which 8-bit format gains most from manifold-aware weight updates? Runs the suites that answer it.",
    epilog="--traceback, anywhere, shows where an error came from.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help texts have brackets of their own
)


def _version(asked: bool) -> None:
    if asked:
        print(f"altgrad-bench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    pass


_LONGEST_ERROR = 8000
"""Characters of an error message that are shown."""


def main() -> None:
    """Entry point: users' mistakes are one paragraph and exit code 2, without a traceback."""
    safe_streams()
    show_traceback = "--traceback" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--traceback"]
    try:
        app()
    except UserError as error:
        if show_traceback:
            raise
        _fail(str(error))
    except OSError as error:
        if show_traceback:
            raise
        _fail(_refused(error))
    except ModuleNotFoundError as error:
        if show_traceback or not (said := _lacking(error)):
            raise
        _fail(said)


def _lacking(error: ModuleNotFoundError) -> str:
    """The package of ours that is not installed, in a sentence; empty where it is another's."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    name = (error.name or "").partition(".")[0]
    ours = [Requirement(one).name.replace("-", "_") for one in requires("altgrad-bench") or ()]
    if name not in ours:
        return ""
    return (
        f"the package {name} is not installed, and altgrad-bench needs it for this: altgrad-bench doctor says all "
        f"that is missing, and what mends it."
    )


def _refused(error: OSError) -> str:
    """What the system refused, in a sentence: with ``--traceback`` it is shown where."""
    name = str(error.filename or "")
    name = name if len(name) <= 200 else f"{name[:100]}…{name[-60:]}"
    if error.errno == errno.ENOSPC:
        return f"no disk space left while writing {name or 'the output'}: free some and run again."
    said = error.strerror or str(error)
    if not name:
        return f"the system says: {said}. Is the current folder still there?"
    return f"{name}: {said}. Name another place, or see to it that it can be read and written."


def _fail(message: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(
        f"error: {plain(message, _LONGEST_ERROR)}", markup=False, highlight=False, soft_wrap=True
    )
    raise SystemExit(2)


@contextmanager
def _told_if_interrupted(console: Console, command: str) -> Iterator[None]:
    """Says how to go on after Ctrl-C and the like, and ends as shells do."""
    from altgrad_core.execution.interruption import Interrupted

    try:
        yield
    except Interrupted as end:
        with suppress(OSError):  # of a terminal that is gone
            say(
                console,
                f"{end}. The same command goes on from here, unfinished runs from their last checkpoint: "
                f"{command}",
            )
        raise SystemExit(128 + end.number) from end


@app.command()
def run(
    suite: SuiteArgument,
    set_: SetOption = None,
    runs: RunsOption = "runs",
    device: DeviceOption = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at once [default: 1 on a GPU, else per core].")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each run [default: 1].")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.0, metavar="MINUTES", help="Limit for each run.")
    ] = None,
    stall_timeout: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="MINUTES", help="End a run that gives no sign of life for so long."
        ),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, help="Try a run without a result so often again.")
    ] = 0,
    oom_accumulate: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Out of memory: try again with batches in 2, 4, … N parts."
        ),
    ] = 1,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="End with the first run without a result.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Run only these: beginnings of ids, or: failed."),
    ] = None,
    executor: Annotated[
        str, typer.Option(help="The executor plugin.", autocompletion=completion.executors)
    ] = "local",
    executor_set: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A setting of the executor: gpus=0.5."),
    ] = None,
    report: Annotated[bool, typer.Option(help="Write the report at the end.")] = True,
) -> None:
    """Run what is missing of a suite, then write its report."""
    from altgrad_core.execution.failures import failure_lines
    from altgrad_core.execution.options import RunOptions, command_line
    from altgrad_core.execution.progress import progress_display
    from altgrad_core.execution.runner import run_suite
    from altgrad_core.planning.overrides import parse_settings
    from altgrad_core.planning.planner import plan_suite
    from altgrad_core.planning.suite import load_suite
    from altgrad_core.registry.catalog import catalog
    from altgrad_core.results.remote.store import open_store
    from altgrad_core.results.remote.url import place_of

    console = output()
    place = place_of(runs)
    if place.store:
        open_store(place.store)  # what is wrong with a URL is said before anything is looked at
    settings = parse_settings(executor_set or (), "--executor-set")
    catalog().validate("executor", executor, settings)  # before data are looked at
    catalog().load("executor", executor)
    plan_ = plan_suite(load_suite(suite, set_ or ()))
    for note in plan_.notes:
        say(console, f"note: {note}")
    options = RunOptions(
        runs=place.runs,
        store=place.store,
        device=device,
        workers=workers,
        threads=threads,
        timeout=timeout * 60 if timeout is not None else None,
        stall_timeout=stall_timeout * 60 if stall_timeout is not None else None,
        retries=retries,
        oom_accumulate=oom_accumulate,
        fail_fast=fail_fast,
        only=tuple(only or ()),
        executor=executor,
        executor_settings=settings,
        command=command_line(),
    )
    with _told_if_interrupted(console, options.command), progress_display(console) as display:
        result = run_suite(plan_, options, display)
    if report:
        cli_results.report_on([result.directory], None, None, console)
    for line in failure_lines(result, options.command):
        say(console, line)
    if result.user_errors:
        raise UserError("; ".join(result.user_errors))
    if not result.ok_as_asked:
        raise SystemExit(1)


@app.command()
def plan(
    suite: SuiteArgument,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write each cell as a suite file that runs alone."),
    ] = None,
) -> None:
    """Show the cells of a suite without running anything."""
    from altgrad_core.planning.planner import plan_suite
    from altgrad_core.planning.suite import load_suite

    with stdout_to_stderr() if as_json else nullcontext():  # plugins may print
        plan_ = plan_suite(load_suite(suite, set_ or ()))
    if as_json:
        print(json.dumps(plan_.to_json(), indent=2))
    else:
        from altgrad_core.planning.present import print_plan

        print_plan(plan_, output())
    if export is not None:
        from altgrad_core.planning.export import export_plan

        for path in export_plan(plan_, export):
            print(path, file=sys.stderr if as_json else sys.stdout)


@app.command(name="list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="formats, optimizers, monitors, tasks, sections, executors, trackers or suites.",
            autocompletion=completion.plural_kinds,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the plugins and suites that are installed; exit code 1 where one is broken."""
    from altgrad_core.planning.suite import described_suites
    from altgrad_core.registry.present import listing, parse_kind, print_listing, problems

    console = output()
    only_suites = kind in ("suite", "suites")
    with stdout_to_stderr() if as_json else nullcontext():  # plugins may print
        found = {} if only_suites else listing(None if kind is None else parse_kind(kind))
        if kind is None or only_suites:
            found["suites"] = described_suites()
        wrong = problems()
    if as_json:
        print(json.dumps({**found, "problems": wrong}, indent=2))
    else:
        print_listing(found, console)
        for problem in wrong:
            console.print(problem, style="red", markup=False, highlight=False)
    if wrong:
        raise SystemExit(1)


cli_installed.add_commands(app)
cli_results.add_commands(app)
cli_verify.add_commands(app)
cli_plugins.add_commands(app)
app.add_typer(speed, name="speed")


if __name__ == "__main__":
    main()
