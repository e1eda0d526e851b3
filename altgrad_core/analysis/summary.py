"""The main table: one row per condition, mean and spread over its seeds.

Only runs that ended by themselves (``ok`` or ``diverged``) are counted. A diverged run has no final
evaluation; it counts as the worst score there is, because leaving it out would reward divergence.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from altgrad_core.analysis.groups import side_of
from altgrad_core.analysis.numbers import Spread, spread
from altgrad_core.results.run_directory import FINISHED
from altgrad_core.results.scores import declaration, worst_score
from altgrad_core.results.stored import Contrast

SCORES: dict[str, str] = {
    "final/test/f1_micro_tuned": "F1 micro, tuned",
    "final/test/f1_macro_tuned": "F1 macro, tuned",
    "final/test/f1_micro": "F1 micro, at\N{NO-BREAK SPACE}0.5",
    "final/test/f1_macro": "F1 macro, at\N{NO-BREAK SPACE}0.5",
}
"""Scores of the main table: the test split, at the threshold tuned on validation and at 0.5."""

MEASURES: dict[str, str] = {
    "samples_per_second": "throughput/all/cumulative_samples_per_second@last",
    "stable_rank_first": "rank/all/stable_rank@first",
    "stable_rank_last": "rank/all/stable_rank@last",
    "effective_rank_first": "rank/all/effective_rank@first",
    "effective_rank_last": "rank/all/effective_rank@last",
    "stall_ratio": "flips/all/stall_ratio@mean",
    "flip_ratio": "flips/all/flip_ratio@mean",
}
"""Columns of the main table that monitors supply -> where the results table has them."""

REFERENCES = ("bf16", "fp32")
"""Formats that others are compared with, the first one that a suite has."""


def finished(results: pd.DataFrame) -> pd.DataFrame:
    """The planned runs that have a result."""
    return results[results["planned"] & results["status"].isin(list(FINISHED))]


def scores(runs: pd.DataFrame, metric: str) -> pd.Series[float]:
    """``metric`` of each run: the worst score for diverged ones, NaN where not recorded."""
    recorded = column(runs, metric)
    return recorded.mask(runs["status"] == "diverged", worst_score(declaration(runs, metric)))


def column(runs: pd.DataFrame, name: str) -> pd.Series[float]:
    """A numeric column of the results table; all NaN if no run recorded it."""
    if name in runs:
        return runs[name].astype("float64")
    return pd.Series(math.nan, index=runs.index, dtype="float64")


def conditions(results: pd.DataFrame) -> list[str]:
    """The conditions of the planned runs, in the suite's order."""
    return list(dict.fromkeys(results.loc[results["planned"], "condition"]))


def reference_condition(results: pd.DataFrame, contrast: Contrast | None) -> str | None:
    """What the other conditions are compared with: the plainest of the contrast's baseline.

    That is bf16, else fp32, on master weights, where the suite has them; of several the first. Without
    a contrast all conditions are looked at.
    """
    planned = results[results["planned"]]
    if contrast is not None and contrast.axis in planned:
        baseline = side_of(results, contrast, contrast.baseline)
        planned = baseline if len(baseline) else planned
    for name, values in (("format", REFERENCES), ("residency", ("master",))):
        for value in values:
            chosen = planned[planned[name] == value]
            if len(chosen):
                planned = chosen
                break
    return str(planned["condition"].iloc[0]) if len(planned) else None


def condition_table(results: pd.DataFrame, contrast: Contrast | None = None) -> pd.DataFrame:
    """One row per condition of the suite, in its order; numbers are not rounded.

    Columns: ``condition``, ``format``, ``optimizer``, ``runs`` (planned), ``n`` (with a result),
    ``<score>_mean`` and ``<score>_std`` for each of ``SCORES``, the columns of ``MEASURES`` (means
    over seeds), ``relative_throughput`` (1 for :func:`reference_condition`), ``status`` (counts).
    """
    rows = [_condition_row(results, name) for name in conditions(results)]
    measured = [f"{_short(m)}_{kind}" for m in SCORES for kind in ("mean", "std")]
    names = ["condition", "format", "optimizer", "runs", "n", *measured, *MEASURES]
    table = pd.DataFrame(rows, columns=[*names, "relative_throughput", "status"])
    reference = table.loc[
        table["condition"] == reference_condition(results, contrast), "samples_per_second"
    ]
    if len(reference):
        table["relative_throughput"] = table["samples_per_second"] / reference.iloc[0]
    return table


def _condition_row(results: pd.DataFrame, condition: str) -> dict[str, object]:
    planned = results[results["planned"] & (results["condition"] == condition)]
    done = finished(planned)
    row: dict[str, object] = {
        "condition": condition,
        "format": planned["format"].iloc[0],
        "optimizer": planned["optimizer"].iloc[0],
        "runs": len(planned),
        "n": len(done),
        "status": status_counts(planned["status"].tolist()),
    }
    for metric in SCORES:
        values = spread(scores(done, metric))
        row[f"{_short(metric)}_mean"], row[f"{_short(metric)}_std"] = values.mean, values.std
    for name, source in MEASURES.items():
        row[name] = spread(column(done, source)).mean
    return row


def score_of(row: pd.Series[float], metric: str) -> Spread:
    """The spread of one of ``SCORES`` in a row of :func:`condition_table`."""
    short = _short(metric)
    return Spread(float(row[f"{short}_mean"]), float(row[f"{short}_std"]), int(row["n"]))


def status_counts(statuses: Sequence[str]) -> str:
    """``ok``, or ``2 ok, 1 diverged``; the count is left out where there is one run."""
    counts = Counter(statuses)
    if len(statuses) == 1:
        return statuses[0]
    return ", ".join(f"{n} {status}" for status, n in counts.items())


def _short(metric: str) -> str:
    return metric.rpartition("/")[2]
