"""The commands that look at results: status, report, compare, dashboard, pack. Heavy imports wait for their use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from altgrad_core import completion
from altgrad_core.cli_options import JsonOption, RunsOption
from altgrad_core.errors import UserError
from altgrad_core.terminal import output, say

if TYPE_CHECKING:
    from rich.console import Console

_SUITE_HELP = "A suite's name, its folder of runs or the URL of one, or an archive."
_OUT_HELP = "Where to write [default: its runs folder]."


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (status, report, compare, dashboard, pack):
        app.command()(command)


def status(
    suite: Annotated[str, typer.Argument(help=_SUITE_HELP, autocompletion=completion.run_folders)],
    runs: RunsOption = "runs",
    as_json: JsonOption = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Show it anew until every run has ended; Ctrl-C ends it."),
    ] = False,
) -> None:
    """Show how far the runs of a suite are; with --watch exit code 1 if one ended without a result."""
    from altgrad_core.cli_status import print_status, status_data, watch_status

    folders = _folders(suite, runs)
    if watch:
        if as_json:
            raise UserError("--watch is for people to read, and --json for programs: give one.")
        try:
            with _followed(suite, runs):
                well = watch_status(folders, output())
        except KeyboardInterrupt as end:
            raise SystemExit(130) from end
        raise SystemExit(0 if well else 1)
    if as_json:
        print(json.dumps([status_data(folder, name) for folder, name in folders], indent=2))
        return
    for folder, name in folders:
        print_status(folder, name, output())


def report(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SUITE...",
            help="A suite's name, or its folder of runs; several folders of one suite become one.",
            autocompletion=completion.run_folders,
        ),
    ] = None,
    runs: RunsOption = "runs",
    source: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="SOURCE", help="W&B: wandb:ENTITY/PROJECT[/SUITE]."),
    ] = None,
    questions: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Only these questions: throughput,benefit,…"),
    ] = None,
    contrast: Annotated[
        str | None,
        typer.Option(metavar="AXIS=A,B", help="Compare B with A along this axis instead."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help=_OUT_HELP)] = None,
) -> None:
    """Write the report of a suite from its run directories, or from W&B."""
    sources = [*_sources(suites or [], runs), *(source or [])]
    if not sources:
        raise UserError("name a suite or its folder of runs, or --from wandb:ENTITY/PROJECT.")
    chosen = [name.strip() for name in questions.split(",")] if questions else None
    report_on(sources, out, chosen, output(), contrast)


def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A suite's folder, or wandb:….", autocompletion=completion.run_folders
        ),
    ],
    second: Annotated[
        str,
        typer.Argument(
            metavar="B", help="What is compared with it.", autocompletion=completion.run_folders
        ),
    ],
    runs: RunsOption = "runs",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write Markdown and CSV there, too.")
    ] = None,
) -> None:
    """Compare two sets of results, condition by condition, paired by seed."""
    from altgrad_core.report.compare import compare_results, comparison_tables, write_comparison

    console = output()
    found = compare_results(*_sources([first, second], runs))
    for table in comparison_tables(found):
        console.print(table)
    for note in found.notes:
        say(console, note)
    for path in write_comparison(found, out) if out is not None else ():
        say(console, f"written: {path}")


def dashboard(
    suite: Annotated[str, typer.Argument(help=_SUITE_HELP, autocompletion=completion.run_folders)],
    runs: RunsOption = "runs",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser.")] = True,
) -> None:
    """Serve the report of a running suite on this machine, updating itself."""
    from altgrad_core.report.build import watched
    from altgrad_core.report.live.server import serve

    console = output()
    folders = _folders(suite, runs)
    if len(folders) > 1:
        raise UserError(f"{suite} holds {len(folders)} suites, and a dashboard shows one.")
    with _followed(suite, runs):
        serve(
            folders[0][0],
            watched,
            port=port,
            open_browser=open_,
            announce=lambda text: say(console, text),
        )


def pack(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SUITE...",
            help="A suite's name, its folder of runs, or a folder.",
            autocompletion=completion.run_folders,
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.zip", help="Where to write.")],
    runs: RunsOption = "runs",
    predictions: Annotated[
        bool,
        typer.Option(
            "--predictions/--no-predictions",
            help="Without, a tenth of the size: the error of the test set is kept instead.",
        ),
    ] = True,
) -> None:
    """Put results into one portable archive, without checkpoints and logs."""
    from altgrad_core.analysis.sampling import draws_of
    from altgrad_core.results import archive
    from altgrad_core.results.sources import read_sources

    places = [one if Path(one).is_dir() else _sources([one], runs)[0] for one in sources]
    suites = tuple(suite for place in places for suite in read_sources(place))
    count = archive.pack(suites, out, None if predictions else draws_of)
    size = out.stat().st_size / 1e6
    say(output(), f"{out}: {count} {'run' if count == 1 else 'runs'}, {size:.1f} MB")


def report_on(
    sources: Sequence[str | Path],
    out: Path | None,
    questions: Sequence[str] | None,
    console: Console,
    contrast: str | None = None,
) -> None:
    """Print the main table and write the report of the results at ``sources``."""
    from altgrad_core.analysis.find import find
    from altgrad_core.analysis.formats import format_table
    from altgrad_core.report.build import write_report
    from altgrad_core.report.terminal import main_table
    from altgrad_core.results.sources import read_one
    from altgrad_core.results.stated import with_contrast

    suite = read_one(sources)
    if contrast is not None:
        suite = with_contrast(suite, contrast)
    found = find(suite, format_table(suite))
    files = write_report(found, out if out is not None else suite.path / "report", questions)
    console.print(main_table(found))
    say(console, f"report: {files.html}")
    say(console, f"        {files.markdown}")


def runs_folder(suite: str, runs: str) -> Path:
    """The folder that holds a suite's runs: given as such, or by the suite's name or file; a copy of one on a store."""
    from altgrad_core.registry.problems import nearest
    from altgrad_core.results.remote.copy import local_copy
    from altgrad_core.results.remote.url import folder_of

    if url := _url(suite, runs):
        return local_copy(url)
    within = folder_of(runs)
    candidates = [folder_of(suite), within / suite, within / Path(suite).stem]
    for folder in candidates:
        if (folder / "plan.json").is_file():
            return folder
    if suite.endswith(".zip"):
        raise UserError(f"there is no archive {suite}: give its path from the current folder.")
    tried = ", ".join(dict.fromkeys(map(str, candidates)))
    known = [path.parent.name for path in sorted(within.glob("*/plan.json"))]
    guess = nearest(Path(suite).stem, known)
    meant = f" Did you mean {guess!r}?" if guess else ""
    raise UserError(
        f"no runs of {suite!r} found: none of {tried} holds a plan.json.{meant} Run the suite first, or "
        f"give its folder (--runs says where the suites' folders are)."
    )


def _url(suite: str, runs: str) -> str:
    """Where a suite is, if that is on a store; else empty."""
    from altgrad_core.results.remote.url import url_of

    if url := url_of(suite):
        return url
    store = url_of(runs)
    return (
        f"{store}/{Path(suite).stem}" if store and not (Path(suite) / "plan.json").exists() else ""
    )


def _followed(suite: str, runs: str) -> AbstractContextManager[None]:
    """Keeps the copy of what is on a store up to date, as long as it is watched."""
    from altgrad_core.results.remote.copy import followed

    url = _url(suite, runs)
    return followed(url) if url else nullcontext()


def _folders(suite: str, runs: str) -> list[tuple[Path, str]]:
    """Folder and shown name of the suite; of an archive, of each suite that it holds, unpacked."""
    from altgrad_core.results.archive import is_archive, read_archive

    if is_archive(Path(suite)):
        return [(one.files, suite) for one in read_archive(Path(suite))]
    folder = runs_folder(suite, runs)
    return [(folder, _url(suite, runs) or str(folder))]


def _sources(given: Sequence[str], runs: str) -> list[str | Path]:
    """Folders of runs, by name or path; archives and addresses are left as they are."""
    from altgrad_core.results.sources import is_kept_elsewhere

    return [
        name
        if is_kept_elsewhere(name) or _is_itself(name)
        else _url(name, runs) or runs_folder(name, runs)
        for name in given
    ]


def _is_itself(name: str) -> bool:
    """Whether ``name`` is a run directory or an archive, which are read as they are."""
    return (Path(name) / "spec.yaml").is_file() or (name.endswith(".zip") and Path(name).is_file())
