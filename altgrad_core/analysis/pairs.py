"""The scores of each seed's two runs, and their difference.

A diverged run has no final evaluation, and leaving it out would reward divergence. Where the task
declares a worst value, it counts as that; where there is none, as with a loss, its pair is dropped,
and counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from altgrad_core.analysis.design import Group
from altgrad_core.interfaces.metric import Metric
from altgrad_core.results.run_directory import FINISHED

COLUMNS = (
    *("group", "seed", "baseline_id", "treatment_id", "baseline", "treatment", "delta", "gain"),
    *("diverged", "dropped"),
)


def pairs_table(
    groups: Sequence[Group], runs: pd.DataFrame, column: str, metric: Metric
) -> pd.DataFrame:
    """One row per group and seed of which both runs have a result; ``COLUMNS``.

    ``column`` is where the ``runs``, of which the groups are parts, have the metric. ``diverged``
    names the side, ``both`` or nothing;
    ``dropped`` says why a pair does not count, and is empty where it does.
    """
    known = runs[["seed", "id"]].assign(
        score=scores(runs, column, metric), ended=diverged(runs, column)
    )
    known = known[np.isfinite(known["score"]) | known["ended"]]

    def side(name: str) -> pd.DataFrame:
        places = [(g.label, at) for g in groups for at in getattr(g, name).index]
        found = pd.DataFrame(places, columns=["group", "at"]).astype({"at": known.index.dtype})
        return found.join(known, on="at", how="inner").drop_duplicates(
            ["group", "seed"], keep="last"
        )

    both = side("left").merge(side("right"), on=["group", "seed"], suffixes=("", "_right"))
    order = {group.label: place for place, group in enumerate(groups)}
    both = both.sort_values(
        ["group", "seed"], key=lambda c: c.map(order) if c.name == "group" else c
    )
    left, right = both["ended"].astype(bool), both["ended_right"].astype(bool)
    delta = both["score_right"] - both["score"]
    names = np.select([left & right, left, right], ["both", "baseline", "treatment"], "")
    table = pd.DataFrame(
        {
            "group": both["group"],
            "seed": both["seed"],
            "baseline_id": both["id"],
            "treatment_id": both["id_right"],
            "baseline": both["score"],
            "treatment": both["score_right"],
            "delta": delta,
            "gain": metric.sign * delta,
            "diverged": names,
            "dropped": np.where(np.isfinite(delta), "", [f"{name} diverged" for name in names]),
        }
    )
    texts = dict.fromkeys(("diverged", "dropped"), object)
    return table.astype({"seed": "int64", **texts}).reset_index(drop=True)


def scores(runs: pd.DataFrame, column: str, metric: Metric) -> pd.Series[float]:
    """Each run's value of a final metric: the worst where it diverged, NaN where there is none."""
    worst = math.nan if metric.worst is None else metric.worst
    known = _recorded(runs, column).mask(diverged(runs, column), worst)
    return known.where(runs["status"].isin(list(FINISHED)))


def diverged(runs: pd.DataFrame, column: str) -> pd.Series[bool]:
    """The runs that diverged: by their status, or since their score at the end is no finite number."""
    broken = ~np.isfinite(_recorded(runs, column)) & (runs["status"] == "ok") & (column in runs)
    return (runs["status"] == "diverged") | broken


def _recorded(runs: pd.DataFrame, column: str) -> pd.Series[float]:
    known = runs[column] if column in runs else pd.Series(math.nan, index=runs.index)
    return known.astype("float64")
