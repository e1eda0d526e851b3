"""Everything that a report says, as numbers: computed once, before any of it is put into words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from altgrad_core.analysis.contrast import Delta, NoiseFloor, deltas, noise_floor
from altgrad_core.analysis.summary import SCORES, condition_table, finished
from altgrad_core.results.collect import curves_table, results_table
from altgrad_core.results.stored import Contrast, StoredRun, StoredSuite

CURVES = ("train/all/loss", "validation/all/f1_micro_tuned")


@dataclass(frozen=True)
class Findings:
    """The tables of one suite.

    ``deltas`` is under the contrast's metric; ``companions`` are the same differences under each
    other score of the main table. All are empty where the suite declares no contrast.
    """

    suite: StoredSuite
    results: pd.DataFrame
    conditions: pd.DataFrame
    curves: pd.DataFrame
    deltas: tuple[Delta, ...]
    companions: dict[str, tuple[Delta, ...]]
    floors: tuple[NoiseFloor, ...]

    @property
    def contrast(self) -> Contrast | None:
        """The comparison that the suite is made for."""
        return self.suite.plan.contrast if self.suite.plan is not None else None

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
        """The planned runs that have a directory, in the suite's order."""
        stored = {run.spec.id: run for run in self.suite.runs}
        return tuple(stored[run_id] for run_id in self.planned["id"] if run_id in stored)

    @property
    def seeds(self) -> int:
        """How many seeds the plan has."""
        return int(self.planned["seed"].nunique())

    @property
    def floor(self) -> float | None:
        """The largest difference between formats with the same grid, if any pair was run."""
        return max((floor.largest for floor in self.floors), default=None)

    @property
    def compared(self) -> tuple[Delta, ...]:
        """The groups that have at least one pair."""
        return tuple(delta for delta in self.deltas if delta.pairs)


def find(suite: StoredSuite, same_grid: Sequence[tuple[str, str]] = ()) -> Findings:
    """Compute a suite's findings. ``same_grid`` names the pairs of formats with the same grid."""
    results = results_table([suite])
    contrast = suite.plan.contrast if suite.plan is not None else None
    companions: dict[str, tuple[Delta, ...]] = {}
    found: tuple[Delta, ...] = ()
    metric = next(iter(SCORES))
    if contrast is not None:
        metric = contrast.metric
        found = tuple(deltas(results, contrast))
        others = [name for name in SCORES if name != metric]
        companions = {name: tuple(deltas(results, contrast, name)) for name in others}
    return Findings(
        suite=suite,
        results=results,
        conditions=condition_table(results, contrast),
        curves=curves_table([suite], CURVES),
        deltas=found,
        companions=companions,
        floors=tuple(noise_floor(results, metric, same_grid)),
    )
