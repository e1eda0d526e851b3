"""Two sets of results side by side: what B does otherwise than A, condition by condition.

For a change of hardware, of a version or of a setting: the same conditions run twice. Differences are
B − A, paired by seed, since runs with the same seed share initial weights, data order and dropout.
Every metric here is better when larger. Runs with the same id have the same settings, data and plugin
versions; where they also end the same to the last digit they are *identical*, and where they do not,
what differs is the machine, torch, or the code of a version that was not counted up.

p-values are adjusted by Holm over the conditions, for each metric by itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from altgrad_core.analysis.multiplicity import holm_over_distinct
from altgrad_core.analysis.numbers import Spread, spread
from altgrad_core.analysis.paired import PairedSummary, paired_summary
from altgrad_core.analysis.summary import MEASURES, SCORES, column, finished, scores
from altgrad_core.errors import UserError
from altgrad_core.results.collect import results_table
from altgrad_core.results.differences import outcome_differences, setting_differences
from altgrad_core.results.stored import StoredRun, StoredSuite

SPEED = MEASURES["samples_per_second"]
METRICS: dict[str, str] = {**SCORES, SPEED: "Samples/s"}
"""What is compared: column of the results table -> what a reader calls it."""


@dataclass(frozen=True)
class RunPair:
    """The two runs of one condition and seed.

    Attributes:
        condition: The condition.
        seed: The seed.
        ids: The run's id in A and in B.
        diverged: Whether it diverged in A and in B.
        differences: How they ended differently: name -> the two values as text.
    """

    condition: str
    seed: int
    ids: tuple[str, str]
    diverged: tuple[bool, bool]
    differences: Mapping[str, tuple[str, str]]

    @property
    def same(self) -> bool:
        """Whether both are the same run, by their ids."""
        return self.ids[0] == self.ids[1]

    @property
    def identical(self) -> bool:
        """Whether they are, and ended the same: status, step and every final metric."""
        return self.same and not self.differences


@dataclass(frozen=True)
class Change:
    """One condition under one metric.

    Attributes:
        condition: The condition.
        metric: The column of the results table.
        seeds: The seeds of the pairs.
        a: The values of A in these pairs; a diverged run has the worst score.
        b: Those of B.
        summary: The differences B − A.
        adjusted_p: The t test's p after Holm over the conditions; NaN where there is nothing to test.
    """

    condition: str
    metric: str
    seeds: tuple[int, ...]
    a: Spread
    b: Spread
    summary: PairedSummary
    adjusted_p: float = math.nan


@dataclass(frozen=True)
class SetComparison:
    """Everything that two sets of results say against each other.

    Attributes:
        names: What A and B are called.
        changes: A change per metric and condition, for each metric that any pair has.
        pairs: The pairs of runs that both have a result.
        only: The conditions that A alone has results of, and B alone.
        unpaired: Condition that both have -> its seeds with a result on one side alone.
        settings: What differs between the runs of pairs with different ids: key, values -> how often.
        unexplained: Pairs with different ids of which no known setting differs.
        devices: What A and B ran on.
        notes: What is to be known of the numbers, and of how each set was read.
    """

    names: tuple[str, str]
    changes: tuple[Change, ...]
    pairs: tuple[RunPair, ...]
    only: tuple[tuple[str, ...], tuple[str, ...]]
    unpaired: Mapping[str, tuple[int, ...]]
    settings: Mapping[tuple[str, str, str], int]
    unexplained: int
    devices: tuple[tuple[str, ...], tuple[str, ...]]
    notes: tuple[str, ...] = ()

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions with at least one pair, in A's order."""
        return tuple(dict.fromkeys(pair.condition for pair in self.pairs))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that any pair has."""
        return tuple(dict.fromkeys(change.metric for change in self.changes))

    def of(self, metric: str) -> tuple[Change, ...]:
        """The changes under one metric."""
        return tuple(change for change in self.changes if change.metric == metric)

    def frame(self) -> pd.DataFrame:
        """One row per condition and metric; numbers are not rounded."""
        return pd.DataFrame([self._row(change) for change in self.changes], columns=_COLUMNS)

    def _row(self, change: Change) -> tuple[object, ...]:
        s = change.summary
        pairs = [pair for pair in self.pairs if pair.condition == change.condition]
        return (
            *(change.condition, change.metric, s.n, change.a.mean, change.b.mean),
            *(s.mean, s.std, s.low, s.high, s.t_p, change.adjusted_p, s.sign_flip_p, s.improved),
            *(sum(pair.same for pair in pairs), sum(pair.identical for pair in pairs)),
        )


_COLUMNS = [
    *("condition", "metric", "pairs", "mean_a", "mean_b"),
    *("difference", "std", "low", "high", "t_p", "holm_p", "sign_flip_p", "improved"),
    *("same_id", "identical"),
]


def find_changes(
    a: Sequence[StoredSuite], b: Sequence[StoredSuite], names: tuple[str, str] = ("A", "B")
) -> SetComparison:
    """Compare two sets of suites, as ``read_sources`` gives them; ``notes`` are those of the sets.

    Conditions are the same if their labels are; where either set has several suites, those of the
    same suite. Runs that a suite does not plan, and those that served the choice of a learning rate,
    are left out.

    Raises:
        UserError: If no condition has a result in both.
    """
    labelled = len(a) > 1 or len(b) > 1
    tables = _table(a, labelled=labelled), _table(b, labelled=labelled)
    runs = _runs(a), _runs(b)
    keys = [_keys(table) for table in tables]
    both = [key for key in keys[0] if key in keys[1]]
    if not both:
        raise UserError(
            f"{names[0]} and {names[1]} have no condition and seed in common that has a result in "
            f"both: {_listed(keys[0])} against {_listed(keys[1])}."
        )
    joined = [(key, runs[0][keys[0][key]], runs[1][keys[1][key]]) for key in both]
    pairs = tuple(_pair(*key, first, second) for key, first, second in joined)
    conditions = tuple(dict.fromkeys(condition for condition, _ in both))
    other = [(x, y) for _, x, y in joined if x.spec.id != y.spec.id]
    settings = [setting_differences(x.spec, y.spec) for x, y in other]
    return SetComparison(
        names=names,
        changes=_changes(tables, both, conditions),
        pairs=pairs,
        only=(_only(keys[0], keys[1]), _only(keys[1], keys[0])),
        unpaired=_unpaired(keys[0], keys[1], both),
        settings=Counter((k, *values) for one in settings for k, values in one.items()),
        unexplained=sum(not one for one in settings),
        devices=(_devices(tables[0]), _devices(tables[1])),
        notes=tuple(note for suite in (*a, *b) for note in suite.notes),
    )


_Key = tuple[str, int]


def _table(suites: Sequence[StoredSuite], *, labelled: bool) -> pd.DataFrame:
    """The runs with a result; ``condition`` with its suite where there may be several."""
    table = finished(results_table(suites))
    label = table["suite"] + ": " + table["condition"] if labelled else table["condition"]
    return table.assign(condition=label)


def _runs(suites: Iterable[StoredSuite]) -> dict[str, StoredRun]:
    return {run.spec.id: run for suite in suites for run in suite.runs}


def _keys(table: pd.DataFrame) -> dict[_Key, str]:
    rows = zip(table["condition"], table["seed"], table["id"], strict=True)
    return {(str(condition), int(seed)): str(run_id) for condition, seed, run_id in rows}


def _pair(condition: str, seed: int, a: StoredRun, b: StoredRun) -> RunPair:
    diverged = a.status.status == "diverged", b.status.status == "diverged"
    ids = a.spec.id, b.spec.id
    return RunPair(condition, seed, ids, diverged, outcome_differences(a, b))


def _changes(
    tables: tuple[pd.DataFrame, pd.DataFrame], both: Sequence[_Key], conditions: Sequence[str]
) -> tuple[Change, ...]:
    found: list[Change] = []
    for metric in METRICS:
        values = _values(tables[0], metric), _values(tables[1], metric)
        changes = {
            c: _change(c, metric, values, [k for k in both if k[0] == c]) for c in conditions
        }
        if not any(change.summary.n for change in changes.values()):
            continue
        adjusted = holm_over_distinct({c: change.summary.t_p for c, change in changes.items()})
        found += [
            Change(c, metric, x.seeds, x.a, x.b, x.summary, adjusted[c]) for c, x in changes.items()
        ]
    return tuple(found)


def _change(
    condition: str,
    metric: str,
    values: tuple[Mapping[_Key, float], Mapping[_Key, float]],
    keys: Sequence[_Key],
) -> Change:
    known = [key for key in keys if key in values[0] and key in values[1]]
    a, b = ([side[key] for key in known] for side in values)
    summary = paired_summary(y - x for x, y in zip(a, b, strict=True))
    return Change(condition, metric, tuple(s for _, s in known), spread(a), spread(b), summary)


def _values(table: pd.DataFrame, metric: str) -> dict[_Key, float]:
    """The finite values of a metric; a diverged run has the worst score, and its own speed."""
    numbers = column(table, metric) if metric == SPEED else scores(table, metric)
    return {
        key: float(value)
        for key, value in zip(_keys(table), numbers, strict=True)
        if math.isfinite(value)
    }


def _only(mine: Iterable[_Key], theirs: Iterable[_Key]) -> tuple[str, ...]:
    known = {condition for condition, _ in theirs}
    return tuple(dict.fromkeys(condition for condition, _ in mine if condition not in known))


def _unpaired(
    a: Iterable[_Key], b: Iterable[_Key], both: Iterable[_Key]
) -> dict[str, tuple[int, ...]]:
    paired, found = set(both), dict[str, set[int]]()
    shared = {condition for condition, _ in a} & {condition for condition, _ in b}
    for condition, seed in (*a, *b):
        if condition in shared and (condition, seed) not in paired:
            found.setdefault(condition, set()).add(seed)
    return {condition: tuple(sorted(seeds)) for condition, seeds in found.items()}


def _devices(table: pd.DataFrame) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(device) for device in table["device"] if device))


def _listed(keys: Iterable[_Key]) -> str:
    names = list(dict.fromkeys(condition for condition, _ in keys))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "no result") + more
