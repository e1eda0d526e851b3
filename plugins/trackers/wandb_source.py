"""Results out of Weights & Biases, through wandb's public API: ``wandb:ENTITY/PROJECT[/SUITE]``.

``wandb`` is imported in functions only, and whatever it raises becomes a ``UserError`` here. Its
history of a run is scanned whole, not sampled, and never taken from wandb's cache on this machine:
the cache goes by the run's id alone, and would give the old numbers of a run that was done again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from altgrad_core.errors import UserError
from altgrad_core.interfaces.layout import LAYOUT
from altgrad_core.results.stored import StoredSuite
from altgrad_plugins.trackers.wandb_runs import WandbRun, suite_of_runs

WANDB = "wandb:"
"""What stands before an address."""
_TIMEOUT = 30
"""Seconds that W&B may take to answer one request, repetitions included."""
_AT_ONCE = 8
"""Histories that are read at the same time."""
_REFUSED = (401, 403)


@dataclass(frozen=True)
class _Project:
    entity: str
    name: str
    suite: str | None

    def __str__(self) -> str:
        return f"{WANDB}{self.entity}/{self.name}"


def read_wandb(address: str) -> tuple[StoredSuite, ...]:
    """The suites in a W&B project, by name, or the one named: ``ENTITY/PROJECT[/SUITE]``.

    Needs a login (``wandb login`` or ``WANDB_API_KEY``); ``WANDB_BASE_URL`` names a server of one's
    own. Runs that altgrad-bench did not write, or wrote in another layout, are left out with a note.

    Raises:
        UserError: Without a login or a network, where there is no such project, or no run of
            altgrad-bench in it, and where a run is damaged.
    """
    project = _parsed(address)
    found = _listed(project)
    readable = [(run, raw) for run, raw in found if run.ours and run.layout == LAYOUT]
    if not readable:
        raise UserError(_nothing(project, [run for run, _ in found]))
    names = sorted({run.suite for run, _ in readable})
    if project.suite is not None and project.suite not in names:
        raise UserError(f"{project} has no suite {project.suite!r}; it has {', '.join(names)}.")
    wanted = names if project.suite is None else [project.suite]
    complete = _with_histories([pair for pair in readable if pair[0].suite in wanted])
    notes = tuple(_left_out(project, [run for run, _ in found]))
    suites = (
        suite_of_runs(name, f"{project}/{name}", [run for run in complete if run.suite == name])
        for name in wanted
    )
    return tuple(replace(suite, notes=(*notes, *suite.notes)) for suite in suites)


def _parsed(address: str) -> _Project:
    parts = address.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(
            f"{WANDB + address!r} names no W&B project: write {WANDB}ENTITY/PROJECT, or "
            f"{WANDB}ENTITY/PROJECT/SUITE for one suite of it."
        )
    return _Project(parts[0], parts[1], parts[2] if len(parts) == 3 else None)


def _listed(project: _Project) -> list[tuple[WandbRun, Any]]:
    """All runs of the project, without their histories, each with wandb's own object."""
    api = _api(project)
    try:
        runs = api.runs(f"{project.entity}/{project.name}", **_taken(api.runs, lazy=False))
        return [(_described(raw), raw) for raw in runs]
    except UserError:
        raise
    except Exception as error:  # of another package, and of many kinds
        raise _failure(project, error) from error


def _described(raw: Any) -> WandbRun:
    config, summary = raw.config, raw.summary_metrics
    return WandbRun(raw.id, raw.url, raw.state, dict(config), dict(summary or {}))


def _with_histories(pairs: Sequence[tuple[WandbRun, Any]]) -> list[WandbRun]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(_with_history, pairs))


def _with_history(pair: tuple[WandbRun, Any]) -> WandbRun:
    run, raw = pair
    try:
        rows = list(raw.scan_history(**_taken(raw.scan_history, use_cache=False)))
    except Exception as error:  # as above
        raise UserError(f"The history of the W&B run {run.url} cannot be read: {error}") from error
    return replace(run, rows=rows)


def _api(project: _Project) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UserError("Reading from W&B needs the package wandb: pip install wandb.") from error
    try:
        # Without the entity, wandb asks the server for one that is not used.
        return wandb.Api(overrides={"entity": project.entity}, timeout=_TIMEOUT)
    except wandb.errors.UsageError as error:
        raise UserError(
            f"There is no login to W&B, which {project} needs: run `wandb login`, or set "
            "WANDB_API_KEY."
        ) from error
    except Exception as error:  # as above
        raise _failure(project, error) from error


def _failure(project: _Project, error: Exception) -> UserError:
    status = getattr(getattr(error.__cause__, "response", None), "http_status", None)
    said = str(error).strip() or type(error).__name__
    if status in _REFUSED:
        return UserError(
            f"W&B refuses this login for {project} ({said}). Run `wandb login` again, or set "
            "WANDB_API_KEY to a key that may read the project."
        )
    if "could not find project" in said.lower():
        return UserError(
            f"There is no project {project.name!r} of {project.entity!r} at W&B, or this login may "
            "not see it. Names are as in the address of its page."
        )
    return UserError(f"W&B gave no answer for {project} ({said}). Is there a network?")


def _nothing(project: _Project, found: Sequence[WandbRun]) -> str:
    if not found:
        return f"{project} holds no runs."
    reasons = " ".join(_left_out(project, found))
    return (
        f"{project} holds no run that this version can read. {reasons} The tracker `wandb` writes "
        "runs that can be read: add it to the suite's `trackers`."
    )


def _left_out(project: _Project, found: Sequence[WandbRun]) -> Iterator[str]:
    """A sentence for the runs that are not read, by reason."""
    if foreign := sum(not run.ours for run in found):
        yield f"{foreign} of the {len(found)} runs of {project} are not altgrad-bench's."
    other = [run.layout for run in found if run.ours and run.layout != LAYOUT]
    if other:
        layouts = ", ".join(sorted({str(layout) for layout in other}))
        yield (
            f"{len(other)} of the {len(found)} runs of {project} have the layout {layouts} of "
            f"another version of altgrad-bench (this version reads layout {LAYOUT})."
        )


def _taken(function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Those options that this version of wandb knows."""
    return {k: v for k, v in options.items() if k in inspect.signature(function).parameters}
