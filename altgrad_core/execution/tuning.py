"""Tuning learning rates: the runs that choose one for each condition, before the runs that count.

Every round is resumable like any suite: its runs have content ids, so that what is there is not run
again. What was chosen, with the whole curve of every condition, is in ``tuning.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from altgrad_core._files import write_json
from altgrad_core.errors import UserError
from altgrad_core.execution.options import Observer, RunOptions
from altgrad_core.execution.runner import SuiteResult, run_cells
from altgrad_core.planning.declaration import Suite
from altgrad_core.planning.plan import Cell, Plan, plan_suite, plan_tuning, tuning_label
from altgrad_core.planning.tune import TuneSettings, best_rate, extended
from altgrad_core.results.run_directory import RunDirectory
from altgrad_core.results.scores import lower_is_better, worst_score
from altgrad_core.results.stored import StoredTuning, TunedCondition

_TRAINS = 0.5
"""A rate still trains if its mean score is at least this part of the best one."""


def run_tuned(plan: Plan, options: RunOptions, observer: Observer) -> SuiteResult:
    """Tune, then run the cells with the rates that were chosen.

    Ends after tuning where a tuning run has no result: conditions would not have had the same
    budget.
    """
    suite, tune = plan.suite, plan.suite.tune
    if math.isnan(worst_score(tune.metric)):
        raise UserError(
            f"tune.metric: {tune.metric} has no worst value that a diverged run could count as. Use a "
            f"bounded score, such as final/validation/f1_micro_tuned."
        )
    rates, added = tune.learning_rates, 0
    while True:
        cells = plan_tuning(suite, rates)
        observer.message(f"tuning learning rates: {', '.join(f'{rate:g}' for rate in rates)}")
        result = run_cells(suite, cells, (*plan.cells, *cells), options, observer)
        if not result.ok:
            observer.message("learning rates are not chosen yet: some tuning runs have no result")
            return result
        found = choose(tune, rates, added, plan.tuned, _scores(result.directory, cells, tune))
        write_json(result.directory / "tuning.json", found.model_dump(mode="json"))
        below, above = edges(found)
        if not (below or above) or added + below + above > tune.max_extensions:
            break
        rates, added = extended(rates, below=below, above=above), added + below + above
    _announce(found, observer)
    return _run_final(suite, found, cells, options, observer)


def _run_final(
    suite: Suite,
    found: StoredTuning,
    tuning: Sequence[Cell],
    options: RunOptions,
    observer: Observer,
) -> SuiteResult:
    chosen = {label: condition.chosen for label, condition in found.conditions.items()}
    final = plan_suite(suite, rates=chosen)
    return run_cells(suite, final.cells, (*final.cells, *tuning), options, observer)


def choose(
    tune: TuneSettings,
    rates: Sequence[float],
    added: int,
    labels: Sequence[str],
    scores: Mapping[str, Sequence[tuple[float, bool]]],
) -> StoredTuning:
    """The best rate of each condition, from the scores of its tuning runs.

    scores:
        label of a condition at a rate (``tuning_label``) -> score of each seed, and whether that
        run diverged, in the order of the seeds.
    """
    return StoredTuning(
        metric=tune.metric,
        rates=tuple(rates),
        seeds=tune.seeds,
        extensions=added,
        max_extensions=tune.max_extensions,
        conditions={
            label: _chosen(tune, {rate: scores[tuning_label(label, rate)] for rate in rates})
            for label in labels
        },
    )


def _chosen(
    tune: TuneSettings, scores: Mapping[float, Sequence[tuple[float, bool]]]
) -> TunedCondition:
    lower = lower_is_better(tune.metric)
    means = {rate: fmean(score for score, _ in seeds) for rate, seeds in scores.items()}
    best = best_rate(means, lower_is_better=lower)
    diverged = {rate: sum(end for _, end in seeds) for rate, seeds in scores.items()}

    def trains(rate: float) -> bool:
        bound = means[best] / _TRAINS if lower else means[best] * _TRAINS
        reached = means[rate] <= bound if lower else means[rate] >= bound
        return not diverged[rate] and reached

    return TunedCondition(
        scores={f"{rate:g}": tuple(score for score, _ in seeds) for rate, seeds in scores.items()},
        diverged={f"{rate:g}": count for rate, count in diverged.items()},
        chosen=best,
        censored=best in (min(scores), max(scores)),
        largest_stable=max(filter(trains, scores), default=None),
    )


def edges(found: StoredTuning) -> tuple[bool, bool]:
    """Whether the best rate of any condition is the least, and the largest, of the grid."""
    chosen = {condition.chosen for condition in found.conditions.values()}
    return found.rates[0] in chosen, found.rates[-1] in chosen


def _scores(
    folder: Path, cells: Sequence[Cell], tune: TuneSettings
) -> dict[str, list[tuple[float, bool]]]:
    found: dict[str, list[tuple[float, bool]]] = {}
    for cell in cells:
        if cell.spec is not None:
            found.setdefault(cell.label, []).append(
                _score(RunDirectory(folder / cell.spec.id), tune.metric)
            )
    return found


def _score(directory: RunDirectory, metric: str) -> tuple[float, bool]:
    """The final score of a run with a result, the worst where it diverged."""
    if directory.status().status == "diverged":
        return worst_score(metric), True
    final: dict[str, float] = {}
    for record in directory.records():
        final |= record.metrics if record.kind == "final" else {}
    if metric not in final:
        known = ", ".join(name for name in final if name.startswith("final/validation/"))
        raise UserError(
            f"tune.metric: {directory.path} has recorded no {metric}; it has {known or 'none'}."
        )
    return final[metric], False


def _announce(found: StoredTuning, observer: Observer) -> None:
    width = max(map(len, found.conditions))
    for label, condition in found.conditions.items():
        edge = "  (on an edge of the grid: censored)" if condition.censored else ""
        observer.message(f"  {label:<{width}}  {condition.chosen:g}{edge}")
