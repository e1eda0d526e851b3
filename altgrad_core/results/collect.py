"""Run directories -> tables: one row per run, and the curves and events behind it.

Columns of :func:`load_results`, in order:

- ``id``, ``suite``, ``condition``, ``seed``, ``status``, ``message``, ``step``, ``max_steps``,
  ``seconds``, ``planned``, ``stage``, ``format``, ``optimizer``, ``residency``, ``rounding``,
  ``compensation``, ``task``, ``learning_rate``, ``device``, ``threads``, ``versions``,
  ``fingerprint``, ``settings``, ``environment`` (JSON text, empty where not known), ``directory`` (of
  a run that was read from W&B: the address of its page);
- one column per matrix axis, named by its dotted key (``optimizer.type``): these names have a dot
  and no slash, every metric's name has a slash;
- ``final/<split>/<metric>`` as recorded (a run that ended early has none);
- ``family/all/metric@last`` for training and validation, and ``@first``, ``@last`` and ``@mean``
  (over the logged steps) for every monitor's whole-model metric: ``rank/all/stable_rank@first``.

What a run did not record is NaN. A planned cell that has no run directory has a row too, with
status ``skipped`` (and the reason) or ``pending``. ``planned`` is false for a run that the folder
holds but the suite, as it was last run, does not ask for, and for runs that only served the choice of
a learning rate: their ``stage`` is ``tune``, all others' is ``final``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from altgrad_core._axis import FORMAT_AXIS, OPTIMIZER_AXIS, axis_text, is_axis
from altgrad_core._files import atomic_file
from altgrad_core.errors import UserError
from altgrad_core.results.kept import PlannedCell, StoredSpec
from altgrad_core.results.sources import Results, read_sources
from altgrad_core.results.stored import History, StoredRun, StoredSuite

_FIXED = (
    *("id", "suite", "condition", "seed", "status", "message", "step", "max_steps", "seconds"),
    *("planned", "stage", "format", "optimizer", "residency", "rounding", "compensation"),
    *("task", "learning_rate", "device", "threads"),
    *("versions", "fingerprint", "settings", "environment", "directory"),
)

_UNKNOWN: dict[str, Any] = {
    **dict.fromkeys(_FIXED, ""),
    **dict.fromkeys(("step", "max_steps", "seconds"), 0),
    **dict.fromkeys(("learning_rate", "threads"), math.nan),
}
"""The row of a run of which nothing is known."""

_SETTINGS = {"task", "quantization", "optimizer", "training", "monitors"}
"""The parts of a spec that decide what a run does."""

_TYPES: dict[str, Any] = {
    **dict.fromkeys(_FIXED, object),
    **dict.fromkeys(("seed", "step", "max_steps"), "int64"),
    "planned": "bool",
}


def load_results(path: Results) -> pd.DataFrame:
    """One row per run at ``path``: a run directory, a suite's folder, or a folder of suites.

    ``wandb:ENTITY/PROJECT`` reads a project of W&B. Several sources may be given in a list; suites of
    the same name are merged, see :func:`~altgrad_core.results.merge.merge_suites`.

    Raises ``UserError`` where there are no results, or a file is damaged or of another version.
    """
    return results_table(read_sources(path))


def load_curves(path: Results, names: Sequence[str]) -> pd.DataFrame:
    """Metrics by step: columns ``id``, ``step``, ``name``, ``value``. Raises as above."""
    rows = [
        (run.spec.id, step, name, value)
        for suite in read_sources(path)
        for run in suite.runs
        for name in names
        for step, value in sorted(run.history.series.get(name, {}).items())
    ]
    table = pd.DataFrame(rows, columns=["id", "step", "name", "value"])
    return table.astype({"id": object, "step": "int64", "name": object, "value": "float64"})


def results_table(suites: Iterable[StoredSuite]) -> pd.DataFrame:
    """The table of :func:`load_results` for suites that were read already."""
    rows = [row for suite in suites for row in _suite_rows(suite)]
    found = {name: None for row in rows for name in row}
    axes = [name for name in found if is_axis(name)]
    metrics = sorted(name for name in found if "/" in name)
    table = pd.DataFrame(rows, columns=[*_FIXED, *axes, *metrics])
    for name in axes:
        table[name] = _one_type(table[name].tolist())
    floats = dict.fromkeys(("learning_rate", "seconds", "threads", *metrics), "float64")
    # An empty table has these types too; the copy puts columns of one type together again.
    return table.astype(_TYPES | floats).copy()


def write_table(table: pd.DataFrame, path: Path | str) -> None:
    """Write ``table`` as parquet, whole or not at all; ``UserError`` if the disk refuses it."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            table.to_parquet(file, index=False)
    except OSError as error:
        raise UserError(f"The table cannot be written to {path}: {error.strerror}.") from error


def format_label(spec: StoredSpec) -> str:
    """The format as the suite's matrix names it; the bare name where the format is not an axis."""
    value = spec.axes.get(FORMAT_AXIS)
    return axis_text(spec.quantization.format.model_dump() if value is None else value)


def _suite_rows(suite: StoredSuite) -> Iterator[dict[str, Any]]:
    """Rows in the plan's order, then those of runs that the plan does not ask for.

    Two cells may share a run, where a tuned learning rate meets a given one: each has its row.
    """
    runs = {run.spec.id: run for run in suite.runs}
    cells = suite.plan.cells if suite.plan is not None else ()
    for cell in cells:
        run = runs.get(cell.id or "")
        known = _cell_row(suite, cell) if run is None else _run_row(run)
        # What a cell says of itself counts: its run may have been made for another, or another plan.
        named = {"condition": cell.condition, "seed": cell.seed, **_axes(cell.axes)}
        stage = {"planned": cell.stage == "final", "stage": cell.stage}
        yield {**known, "suite": suite.name, **named, **stage}
    asked = {cell.id for cell in cells}
    rest = [run for run in suite.runs if run.spec.id not in asked]
    rest.sort(key=lambda run: (run.spec.condition, run.spec.seed, run.spec.id))
    for run in rest:
        left = {"suite": suite.name, "planned": suite.plan is None, "stage": "final"}
        yield _run_row(run) | left


def _run_row(run: StoredRun) -> dict[str, Any]:
    spec, status, environment = run.spec, run.status, run.environment
    return {
        "id": spec.id,
        "condition": spec.condition,
        "seed": spec.seed,
        "status": status.status,
        "message": status.message,
        "step": status.step,
        "max_steps": spec.training.max_steps,
        "seconds": status.seconds,
        "format": format_label(spec),
        "optimizer": spec.optimizer.name,
        "residency": spec.quantization.residency,
        "rounding": spec.quantization.rounding,
        "compensation": spec.quantization.compensation,
        "task": spec.task.name,
        "learning_rate": spec.training.learning_rate,
        "device": str(environment.get("device_name") or environment.get("device") or ""),
        "threads": environment.get("threads", math.nan),
        "versions": _json(versions(environment, spec)),
        "fingerprint": _json(spec.fingerprint),
        "settings": _json(spec.model_dump(mode="json", include=_SETTINGS)),
        "environment": _json(environment),
        "directory": run.location,
        **_axes(spec.axes),
        **_summaries(run.history),
    }


def _cell_row(suite: StoredSuite, cell: PlannedCell) -> dict[str, Any]:
    """The row of a planned cell that has no run directory, or a damaged one."""
    status, message = ("pending", "not run yet") if cell.skip is None else ("skipped", cell.skip)
    if cell.id is not None and cell.id in suite.damaged:
        status, message = "error", suite.damaged[cell.id]
    return {
        **_UNKNOWN,
        "id": cell.id or "",
        "status": status,
        "message": message,
        "format": axis_text(cell.axes.get(FORMAT_AXIS, "")),
        "optimizer": axis_text(cell.axes.get(OPTIMIZER_AXIS, "")),
    }


def versions(environment: Mapping[str, Any], spec: StoredSpec) -> dict[str, str]:
    """Package -> version of what a run ran with, and its Python."""
    found = {**environment.get("packages", {}), **spec.distributions}
    if python := environment.get("python"):
        found["python"] = python
    return {str(name): str(found[name]) for name in sorted(found)}


def _json(value: Mapping[str, Any]) -> str:
    """As JSON text; empty for nothing."""
    return json.dumps(value, sort_keys=True) if value else ""


def _axes(axes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int | float | str) else axis_text(value)
        for name, value in axes.items()
        if is_axis(name)
    }


def _one_type(values: list[Any]) -> list[Any]:
    """Numbers stay numbers if all are; a column of several types becomes text."""
    kinds = {type(value) for value in values}
    if len(kinds) == 1 or kinds <= {int, float}:
        return values
    return [None if pd.isna(value) else axis_text(value) for value in values]


def _summaries(history: History) -> dict[str, float]:
    """Final metrics as they are; whole-model series by their first, last and mean value."""
    row: dict[str, float] = {}
    for name, series in history.series.items():
        if history.kinds[name] == "final":
            row[name] = series[max(series)]
        elif name.split("/")[1:2] == ["all"]:
            row[f"{name}@last"] = series[max(series)]
            if history.kinds[name] == "monitor":
                row[f"{name}@first"] = series[min(series)]
                row[f"{name}@mean"] = _mean(series.values())
    return row


def _mean(values: Collection[float]) -> float:
    """The mean of the values that are not NaN, as of pandas, whose own call costs more than all else here."""
    known = np.fromiter(values, np.float64, len(values))
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else math.nan
