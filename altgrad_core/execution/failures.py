"""What is said at the end of a suite of the runs that have no result, and the command that runs just those."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from altgrad_core._text import plain
from altgrad_core.execution.cells import SuiteResult

_SHOWN = 20
_LONGEST = 200


def failure_lines(result: SuiteResult, command: str) -> Iterator[str]:
    """A line per run that ended without a result, with its status and why; then what to do about them.

    command:
        what the user typed; empty where there was no command line.
    """
    failed = result.failed
    if failed:
        yield f"{len(failed)} of {len(result.statuses)} runs ended without a result:"
    for run_id, status in list(failed.items())[:_SHOWN]:
        label = result.labels.get(run_id, run_id)
        yield f"  {status.status:<8} {label} ({run_id}): {plain(status.message, _LONGEST)}"
    if len(failed) > _SHOWN:
        yield f"  … and {len(failed) - _SHOWN} more: see altgrad-bench status {result.directory}"
    waiting = sum(one.status == "pending" for one in result.statuses.values())
    if waiting:
        yield f"{waiting} of {len(result.statuses)} runs have not been begun."
    if failed and command:
        yield f"to run just those again: {rerun_command(command, list(failed))}"


def rerun_command(command: str, failed: Sequence[str]) -> str:
    """``command``, for the runs with these ids alone.

    They are named one by one unless they are many: one whose directory was deleted left no status to
    know it by.
    """
    words = iter(shlex.split(command))
    kept: list[str] = []
    for word in words:
        if word == "--only":
            next(words, None)
        elif not word.startswith("--only="):
            kept.append(word)
    wanted = failed if len(failed) <= _SHOWN else ["failed"]
    return shlex.join([*kept, *(word for one in wanted for word in ("--only", one))])
