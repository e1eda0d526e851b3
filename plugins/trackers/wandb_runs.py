"""Runs as W&B returns them -> stored suites, as if read from run directories. Needs no ``wandb``.

The tracker leaves two JSON texts, see :data:`FILES`, from which all but the numbers is read back
word for word. For runs without them there is what W&B itself keeps: the settings in the config, the
status in the summary. Then device, environment, facts and the plan are not known.

W&B merges what was logged at one step into one row, without the kind of record it came from. The
name tells: ``train/``, ``validation/`` and ``final/`` are the core's, all other families monitors'.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from altgrad_core.errors import UserError
from altgrad_core.interfaces.layout import LAYOUT
from altgrad_core.results.kept import StoredPlan, StoredSpec, StoredTuning
from altgrad_core.results.merge import plan_of_runs
from altgrad_core.results.records import History, StoredEvent
from altgrad_core.results.run_directory import FINISHED, Record, RecordKind, Status
from altgrad_core.results.stated import usual_contrast
from altgrad_core.results.stored import StoredRun, StoredSuite

FILES = "altgrad_bench"
"""Key of the tracker's texts: in the config what is known at a run's start, in the summary the end."""

_KINDS: dict[str, RecordKind] = {"train": "train", "validation": "evaluation", "final": "final"}
_GOING_ON = ("running", "pending")
_NOT_IN_JSON = ("NaN", "Infinity", "-Infinity")
_ModelT = TypeVar("_ModelT", bound=BaseModel)


@dataclass(frozen=True)
class WandbRun:
    """One run as W&B's API describes it.

    Attributes:
        id: Its id, which is the cell's.
        url: The address of its page.
        state: W&B's word for how it stands: ``finished``, ``running``, ``crashed``, …
        config: Its config.
        summary: Its summary.
        rows: Its history, a row per step with the metrics logged at it and ``_step``.
    """

    id: str
    url: str
    state: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    rows: Iterable[Mapping[str, Any]] = ()

    @property
    def ours(self) -> bool:
        """Whether altgrad-bench wrote it."""
        return FILES in self.config or {"layout", "condition", "quantization"} <= set(self.config)

    @cached_property
    def start(self) -> dict[str, Any]:
        """The tracker's text of the start, as data; the config as ``spec`` where there is none."""
        return {"spec": dict(self.config), **_text(self.config, self.url)}

    @cached_property
    def end(self) -> dict[str, Any]:
        """The tracker's text of the end, as data; empty where there is none."""
        return _text(self.summary, self.url)

    @property
    def layout(self) -> Any:
        """The layout that its writer had."""
        return self.start["spec"].get("layout")

    @property
    def suite(self) -> str:
        """The suite it belongs to."""
        return str(self.start["spec"].get("suite", ""))


@dataclass(frozen=True)
class KeptRun:
    """A stored run of which all is at hand."""

    spec: StoredSpec
    location: str
    status: Status
    history: History
    environment: dict[str, Any]
    facts: dict[str, Any]

    @property
    def resampled(self) -> dict[str, Any]:
        """None, as there are no predictions."""
        return {}

    def predictions(self, split: str) -> dict[str, Any]:
        """None: the tracker does not upload them."""
        return {}


def suite_of_runs(name: str, source: str, found: Iterable[WandbRun]) -> StoredSuite:
    """The suite ``name`` out of its runs, which are in the order in which W&B created them.

    The plan is that of the run that was started last and has one. Raises ``UserError`` where a run
    holds something else than altgrad-bench writes.
    """
    runs: dict[str, StoredRun] = {}
    plans: dict[float, tuple[dict[str, Any], str]] = {}
    notes: list[str] = []
    for one in found:
        start = one.start
        run = _stored(one, start)
        runs.setdefault(run.spec.id, run)
        if start.get("plan"):
            plans[float(start.get("time", 0))] = (start, one.url)
        if left := one.summary.get("events_left_out"):
            notes.append(f"{run.spec.condition} seed {run.spec.seed}: W&B lacks {left} events.")
    suite = StoredSuite(
        Path(f"{name}-wandb"), None, tuple(runs.values()), None, tuple(notes), source
    )
    return _with_plan(suite, plans)


def _with_plan(
    suite: StoredSuite, plans: Mapping[float, tuple[dict[str, Any], str]]
) -> StoredSuite:
    if plans:
        start, url = plans[max(plans)]
        plan = _validated(StoredPlan, start["plan"], url)
        tuning = start.get("tuning")
        kept = _validated(StoredTuning, tuning, url) if tuning else None
        return replace(suite, plan=plan, tuning=kept)
    plan = plan_of_runs(suite)
    note = (
        f"{suite.source} holds no plan: what the suite planned beyond the runs that are there is "
        "not known, and the contrast is inferred from their optimizers or was given."
    )
    plan = plan.model_copy(update={"contrast": usual_contrast(suite)})
    return replace(suite, plan=plan, notes=(*suite.notes, note))


def _stored(run: WandbRun, start: Mapping[str, Any]) -> StoredRun:
    spec = _validated(StoredSpec, start["spec"], run.url)
    history = _history(run)
    status = _status(run, spec, history)
    _complete(history, run.summary, status)
    environment, facts = start.get("environment", {}), run.end.get("facts", {})
    return KeptRun(spec, run.url, status, history, environment, facts)


def _history(run: WandbRun) -> History:
    history = History()
    for row in run.rows:
        step = int(row.get("_step", 0))
        for kind, metrics in _by_kind(row):
            history.add(Record(step=step, kind=kind, metrics=metrics))
    for event in run.summary.get("events") or ():
        words = (str(event.get(key, "")) for key in ("kind", "layer", "message"))
        history.events.append(StoredEvent(int(event.get("step", 0)), *words))
    return history


def _by_kind(row: Mapping[str, Any]) -> Iterator[tuple[RecordKind, dict[str, float]]]:
    kinds: dict[RecordKind, dict[str, float]] = {}
    for name, value in row.items():
        number = _number(value)
        if number is not None and "/" in name:
            kind = _KINDS.get(name.partition("/")[0], "monitor")
            kinds.setdefault(kind, {})[name] = number
    yield from kinds.items()


def _number(value: Any) -> float | None:
    """A metric's value; None for what is none. NaN and the infinities may come as words."""
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in _NOT_IN_JSON):
        return None
    return float(value)


def _complete(history: History, summary: Mapping[str, Any], status: Status) -> None:
    """Take final metrics that the history lacks (rows can get lost) from the summary."""
    if status.status not in FINISHED:
        return
    for kind, metrics in _by_kind(summary):
        lacking = {n: value for n, value in metrics.items() if n not in history.series}
        if kind == "final" and lacking:
            history.add(Record(step=status.step, kind=kind, metrics=lacking))


def _status(run: WandbRun, spec: StoredSpec, history: History) -> Status:
    """From the tracker's text, else from the summary, else what can be made of W&B's state."""
    ended = run.end.get("status")
    if ended and run.state not in _GOING_ON:
        return _validated(Status, ended, run.url)
    steps = [step for series in history.series.values() for step in series]
    steps += [event.step for event in history.events]
    known: dict[str, Any] = {
        "status": "running" if run.state in _GOING_ON else run.summary.get("status"),
        "step": max(steps, default=0),
        "max_steps": spec.training.max_steps,
        "seconds": _number(run.summary.get("_runtime")) or 0.0,
    }
    if known["status"] is None:
        known |= {"status": "killed", "message": f"W&B calls the run {run.state!r}"}
    for event in history.events:
        if event.kind == known["status"]:
            known["message"] = event.message
    return _validated(Status, known, run.url)


def _text(place: Mapping[str, Any], url: str) -> dict[str, Any]:
    text = place.get(FILES)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (TypeError, ValueError) as error:
        raise _not_ours(url, f"{FILES}: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("spec", {}), dict):
        raise _not_ours(url, f"{FILES} holds no settings")
    return value


def _validated(model: type[_ModelT], raw: Any, url: str) -> _ModelT:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _not_ours(url, f"{where}: {first['msg']}") from error


def _not_ours(url: str, reason: str) -> UserError:
    return UserError(
        f"The W&B run {url} does not hold what altgrad-bench's tracker writes in layout {LAYOUT} "
        f"({reason}). Delete it, move it to another project, or read its run directory instead."
    )
