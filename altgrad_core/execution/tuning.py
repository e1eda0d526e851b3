"""Tuning learning rates: the runs that choose one for each condition, before the runs that count.

Every round is resumable like any suite: its runs have content ids, so that what is there is not run
again. What was chosen, with the whole curve of every condition, is in ``tuning.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from altgrad_core._files import write_json
from altgrad_core.errors import UserError
from altgrad_core.execution.cells import SuiteResult, run_cells
from altgrad_core.execution.options import Observer, RunOptions
from altgrad_core.execution.plan_file import SuiteHold
from altgrad_core.interfaces.executor import Executor
from altgrad_core.interfaces.metric import Metric, declared
from altgrad_core.planning.declaration import Suite
from altgrad_core.planning.plan import Cell, Plan, tuning_label
from altgrad_core.planning.planner import plan_suite, plan_tuning
from altgrad_core.planning.tune import TuneSettings, best_rate, extended
from altgrad_core.results.kept import StoredTuning, TunedCondition
from altgrad_core.results.run_directory import RunDirectory

_TRAINS = 0.5
"""A rate still trains if its mean score is at least this part of the best one."""


def run_tuned(
    plan: Plan, executor: Executor, options: RunOptions, observer: Observer, hold: SuiteHold
) -> SuiteResult:
    """Tune, then run the cells with the rates that were chosen.

    Ends after tuning where a tuning run has no result: conditions would not have had the same
    budget.
    """
    suite, tune = plan.suite, plan.suite.tune
    metric = _metric(plan)
    rates, added = tune.learning_rates, 0
    while True:
        cells = plan_tuning(suite, rates)
        observer.message(f"tuning learning rates: {', '.join(f'{rate:g}' for rate in rates)}")
        result = run_cells(suite, cells, (*plan.cells, *cells), executor, options, observer, hold)
        if not result.ok:
            observer.message("learning rates are not chosen yet: some tuning runs have no result")
            return result
        scores = _scores(result.directory, cells, tune, metric)
        found = choose(tune, metric, rates, added, plan.tuned, scores)
        write_json(result.directory / "tuning.json", json.loads(found.model_dump_json()))
        left = [label for label in plan.tuned if label not in found.conditions]
        _refuse_undefined(tune, left, scores)
        below, above = edges(found)
        below = below or bool(left)  # what diverges at every rate needs smaller ones
        if not (below or above) or added + below + above > tune.max_extensions:
            break
        rates, added = extended(rates, below=below, above=above), added + below + above
    if left:
        raise UserError(
            f"no learning rate can be chosen for {', '.join(left)}: at each of "
            f"{', '.join(f'{rate:g}' for rate in rates)} a tuning run diverged. Begin "
            "tune.learning_rates lower, or exclude these conditions."
        )
    _announce(found, observer)
    return _run_final(suite, found, cells, executor, options, observer, hold)


def _run_final(
    suite: Suite,
    found: StoredTuning,
    tuning: Sequence[Cell],
    executor: Executor,
    options: RunOptions,
    observer: Observer,
    hold: SuiteHold,
) -> SuiteResult:
    chosen = {label: condition.chosen for label, condition in found.conditions.items()}
    final = plan_suite(suite, rates=chosen)
    every = (*final.cells, *tuning)
    return run_cells(suite, final.cells, every, executor, options, observer, hold)


def _refuse_undefined(
    tune: TuneSettings,
    labels: Sequence[str],
    scores: Mapping[str, Sequence[tuple[float, bool]]],
) -> None:
    """Raise where a condition without a choice has not diverged: smaller rates would not help it."""
    for label in labels:
        runs = [
            one
            for name, seeds in scores.items()
            if name.startswith(f"{label}_lr=")
            for one in seeds
        ]
        if not any(diverged for _, diverged in runs):
            raise UserError(
                f"tune.metric: {tune.metric} is no finite number at any learning rate of {label}, so "
                "that it can choose none. Name another metric."
            )


def _metric(plan: Plan) -> Metric:
    found = declared(plan.suite.tune.metric or "", plan.metrics)
    if found is None:  # planning has looked it up
        raise ValueError(f"{plan.suite.tune.metric} is none of the metrics of the plan")
    return found


def choose(
    tune: TuneSettings,
    metric: Metric,
    rates: Sequence[float],
    added: int,
    labels: Sequence[str],
    scores: Mapping[str, Sequence[tuple[float, bool]]],
) -> StoredTuning:
    """The best rate of each condition, from the scores of its tuning runs.

    A rate of which a run diverged, or has no number for a score, is never chosen. A condition without
    any other is left out.

    scores:
        label of a condition at a rate (``tuning_label``) -> score of each seed, and whether that
        run diverged, in the order of the seeds.
    """
    found = {
        label: _chosen(metric, {rate: scores[tuning_label(label, rate)] for rate in rates})
        for label in labels
    }
    return StoredTuning(
        metric=tune.metric or metric.name,
        rates=tuple(rates),
        seeds=tune.seeds,
        extensions=added,
        max_extensions=tune.max_extensions,
        conditions={label: one for label, one in found.items() if one is not None},
    )


def _chosen(
    metric: Metric, scores: Mapping[float, Sequence[tuple[float, bool]]]
) -> TunedCondition | None:
    diverged = {rate: sum(end for _, end in seeds) for rate, seeds in scores.items()}
    means = {
        rate: fmean(score for score, _ in seeds)
        for rate, seeds in scores.items()
        if not diverged[rate]
    }
    best = best_rate(means, metric)
    if best is None:
        return None
    bound = means[best] * _TRAINS if metric.sign > 0 else means[best] / _TRAINS

    def trains(rate: float) -> bool:
        return (
            rate in means and math.isfinite(means[rate]) and not metric.better(bound, means[rate])
        )

    return TunedCondition(
        scores={repr(rate): tuple(score for score, _ in seeds) for rate, seeds in scores.items()},
        diverged={repr(rate): count for rate, count in diverged.items()},
        chosen=best,
        censored=best in (min(scores), max(scores)),
        largest_stable=max(filter(trains, scores), default=None),
    )


def edges(found: StoredTuning) -> tuple[bool, bool]:
    """Whether the best rate of any condition is the least, and the largest, of the grid."""
    chosen = {condition.chosen for condition in found.conditions.values()}
    return found.rates[0] in chosen, found.rates[-1] in chosen


def _scores(
    folder: Path, cells: Sequence[Cell], tune: TuneSettings, metric: Metric
) -> dict[str, list[tuple[float, bool]]]:
    found: dict[str, list[tuple[float, bool]]] = {}
    for cell in cells:
        if cell.spec is not None:
            found.setdefault(cell.label, []).append(
                _score(RunDirectory(folder / cell.spec.id), tune.metric or "", metric)
            )
    return found


def _score(directory: RunDirectory, name: str, metric: Metric) -> tuple[float, bool]:
    """The final score of a run with a result; the worst, or NaN without one, where it diverged."""
    if directory.status().status == "diverged":
        return math.nan if metric.worst is None else metric.worst, True
    final: dict[str, float] = {}
    for record in directory.records():
        final |= record.metrics if record.kind == "final" else {}
    if name not in final:
        known = ", ".join(name for name in final if name.startswith("final/validation/"))
        raise UserError(
            f"tune.metric: {directory.path} has recorded no {name}; it has {known or 'none'}."
        )
    return final[name], False


def _announce(found: StoredTuning, observer: Observer) -> None:
    width = max(map(len, found.conditions))
    for label, condition in found.conditions.items():
        edge = "  (on an edge of the grid: censored)" if condition.censored else ""
        observer.message(f"  {label:<{width}}  {condition.chosen:g}{edge}")
