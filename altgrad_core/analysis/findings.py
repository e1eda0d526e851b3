"""Everything that a report says, as numbers: computed once, before any of it is put into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from altgrad_core.analysis.comparison import Comparison, compare
from altgrad_core.analysis.contrast import Delta, deltas
from altgrad_core.analysis.format_numbers import FormatNumbers
from altgrad_core.analysis.summary import SCORES, condition_table, finished, reference_condition
from altgrad_core.analysis.twins import NoiseFloor, Twins, find_twins, noise_floors
from altgrad_core.errors import UserError
from altgrad_core.interfaces.metric import Metric, declared, primary_column
from altgrad_core.results.collect import curves_table, results_table
from altgrad_core.results.stored import Contrast, StoredRun, StoredSuite, StoredTuning

CURVES = (
    "train/all/loss",
    "validation/all/f1_micro_tuned",
    "rank/all/effective_rank",
    "rank/all/stable_rank",
)


@dataclass(frozen=True)
class Findings:
    """The tables of one suite.

    Attributes:
        suite: What was read.
        results: One row per run.
        conditions: One row per condition.
        curves: Values by step of the metrics in ``CURVES``.
        deltas: Differences under the contrast's metric, placebos among them.
        companions: The same differences under each other score of the main table.
        comparisons: Tests and verdict of each group that is no placebo.
        twins: Runs of formats with the same grid that are equal in all else.
        formats: What is known of the formats themselves, by label; may be empty.
        same_grid: The pairs of formats with the same grid.

    What needs a contrast is empty where the suite declares none.
    """

    suite: StoredSuite
    results: pd.DataFrame
    conditions: pd.DataFrame
    curves: pd.DataFrame
    deltas: tuple[Delta, ...]
    companions: dict[str, tuple[Delta, ...]]
    comparisons: tuple[Comparison, ...]
    twins: tuple[Twins, ...]
    formats: Mapping[str, FormatNumbers] = field(default_factory=dict)
    same_grid: tuple[tuple[str, str], ...] = ()

    @property
    def contrast(self) -> Contrast | None:
        """The comparison that the suite is made for."""
        return self.suite.plan.contrast if self.suite.plan is not None else None

    @property
    def metric(self) -> str:
        """The metric that decides: the contrast's, else the task's primary one."""
        return _deciding(self.suite)

    @property
    def declared(self) -> Metric:
        """What the task says of the metric that decides."""
        return _declared(self.suite)

    @property
    def margin(self) -> float | None:
        """The smallest difference that would matter, as the suite declares it."""
        return self.suite.plan.margin if self.suite.plan is not None else None

    @property
    def tuning(self) -> StoredTuning | None:
        """How learning rates were chosen, if they were."""
        return self.suite.tuning

    @property
    def reference(self) -> str | None:
        """The condition that the others are compared with."""
        return reference_condition(self.results, self.contrast)

    @property
    def planned(self) -> pd.DataFrame:
        """The rows of the planned runs."""
        return self.results[self.results["planned"]]

    @property
    def done(self) -> pd.DataFrame:
        """The rows of the planned runs that have a result."""
        return finished(self.results)

    @property
    def runs(self) -> tuple[StoredRun, ...]:
        """The planned runs that have a record, in the suite's order."""
        stored = {run.spec.id: run for run in self.suite.runs}
        return tuple(stored[run_id] for run_id in self.planned["id"] if run_id in stored)

    @property
    def seeds(self) -> int:
        """How many seeds the plan has."""
        return int(self.planned["seed"].nunique())

    @property
    def floors(self) -> tuple[NoiseFloor, ...]:
        """The differences of each pair of formats with the same grid."""
        return tuple(noise_floors(self.twins))

    @property
    def floor(self) -> float | None:
        """The largest difference between formats with the same grid, if any pair was run."""
        return max((floor.largest for floor in self.floors), default=None)

    @property
    def broken(self) -> tuple[Twins, ...]:
        """The runs that ought to be equal and are not."""
        return tuple(twins for twins in self.twins if twins.broken)

    @property
    def placebos(self) -> tuple[Delta, ...]:
        """The differences of placebos against the baseline."""
        return tuple(delta for delta in self.deltas if delta.place.placebo)

    @property
    def compared(self) -> tuple[Comparison, ...]:
        """The groups that have at least one pair and are not censored."""
        return tuple(c for c in self.comparisons if c.delta.pairs and not c.censored)


def _deciding(suite: StoredSuite) -> str:
    contrast = suite.plan.contrast if suite.plan is not None else None
    return contrast.metric if contrast is not None else primary_column(suite.metrics)


def _declared(suite: StoredSuite) -> Metric:
    metric = declared(_deciding(suite), suite.metrics)
    if metric is None:
        known = ", ".join(one.name for one in suite.metrics)
        raise UserError(
            f"{suite.path}: the contrast's metric {_deciding(suite)!r} is none that the task declares; "
            f"it has {known}."
        )
    return metric


def find(
    suite: StoredSuite,
    same_grid: Sequence[tuple[str, str]] = (),
    formats: Mapping[str, FormatNumbers] | None = None,
) -> Findings:
    """Compute a suite's findings.

    ``same_grid`` names the pairs of formats with the same grid, ``formats`` are the numbers of the
    formats: see :mod:`~altgrad_core.analysis.grids` and
    :mod:`~altgrad_core.analysis.format_numbers`, which have to import torch for them.
    """
    results = results_table([suite])
    plan = suite.plan
    contrast = plan.contrast if plan is not None else None
    metric = _deciding(suite)
    _declared(suite)
    found = tuple(deltas(results, contrast)) if contrast is not None else ()
    others = [name for name in SCORES if name != metric] if contrast is not None else []
    stored = {run.spec.id: run for run in suite.runs}
    return Findings(
        suite=suite,
        results=results,
        conditions=condition_table(results, contrast),
        curves=curves_table([suite], CURVES),
        deltas=found,
        companions={name: tuple(deltas(results, contrast, name)) for name in others if contrast},
        comparisons=compare(
            found,
            margin=plan.margin if plan is not None else None,
            same_grid=same_grid,
            tuning=suite.tuning,
        ),
        twins=tuple(find_twins(results, metric, same_grid, stored)),
        formats=formats or {},
        same_grid=tuple(same_grid),
    )
