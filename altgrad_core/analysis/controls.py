"""Runs that ought to be equal: two formats whose values are equal up to a power of two (A/A pairs).

Such formats are one format under two names. Under scales that are powers of two their runs do the
same arithmetic, bit for bit, so a difference between them is a fault of the instrument. A pair that
broke, since a run diverged or was made elsewhere, decides nothing: its ``status`` is ``undecided``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import pandas as pd

from altgrad_core._axis import FORMAT_AXIS
from altgrad_core.analysis.design import axes_of, keys, settings_of
from altgrad_core.analysis.execution import SIMULATED
from altgrad_core.analysis.pairs import diverged, scores
from altgrad_core.interfaces.metric import Metric
from altgrad_core.results.attempts import parts_of_batches
from altgrad_core.results.run_directory import FINISHED

COLUMNS = ("setting", "formats", "seed", "first_id", "second_id", "difference", "status", "why")


def twins_table(
    runs: pd.DataFrame, column: str, metric: Metric, formats: pd.DataFrame
) -> pd.DataFrame:
    """One row per pair of finished runs that differ in nothing but the name of their grid.

    ``formats`` has a column ``grid``, equal for formats with the same grid and empty for one that is
    too wide to list. ``difference`` is second − first score, NaN where a run diverged.
    """
    done = runs[runs["planned"] & runs["status"].isin(list(FINISHED))]
    done = done.assign(_score=scores(done, column, metric), _diverged=diverged(done, column))
    others = [axis for axis in axes_of(runs) if axis != FORMAT_AXIS]
    places = list(zip(done["seed"], done["optimizer"], keys(done, others), strict=True))
    table = dict(zip(zip(done["format"], places, strict=True), done.index, strict=True))
    settings = settings_of(runs)
    rows = []
    for first, second in _same_grid(formats):
        for place in dict.fromkeys(places):
            ends = table.get((first, place)), table.get((second, place))
            if None not in ends:
                a, b = (done.loc[end] for end in ends)
                setting = settings[str(a["condition"])]
                rows.append(
                    (setting, f"{first} and {second}", a["seed"], a["id"], b["id"], *_pair(a, b))
                )
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    return found.astype({"seed": "int64", "difference": "float64"})


def _same_grid(formats: pd.DataFrame) -> Iterator[tuple[str, str]]:
    grids = dict(formats["grid"]) if len(formats) else {}
    return ((a, b) for a, b in combinations(grids, 2) if grids[a] and grids[a] == grids[b])


def _pair(a: pd.Series[Any], b: pd.Series[Any]) -> tuple[float, str, str]:
    """Difference, status and why."""
    ended = [name for name, run in (("the first", a), ("the second", b)) if run["_diverged"]]
    if ended:
        both = "both runs" if len(ended) == 2 else f"{ended[0]} run"
        return math.nan, "undecided", f"{both} diverged"
    difference = float(b["_score"] - a["_score"])
    if not math.isfinite(difference):
        return math.nan, "undecided", "a run has no score"
    if difference == 0:
        return difference, "equal", ""
    why = _not_promised(a, b)
    return difference, "undecided" if why else "differ", why


def _not_promised(a: pd.Series[Any], b: pd.Series[Any]) -> str:
    """Why the arithmetic does not promise that the two runs are equal; empty where it does."""
    if not (a["settings"] and b["settings"]):
        return "their settings are not known"
    settings = [json.loads(run["settings"]) for run in (a, b)]
    if len({one["quantization"].get("execution", SIMULATED) for one in settings}) > 1:
        return "one was executed natively"
    if not all(exact for one in settings for exact in _scales(one["quantization"])):
        return "scales are not powers of two"
    if any(one["optimizer"]["settings"].get("normalize") == "none" for one in settings):
        return "the optimizer has a setting in the grid's own units"
    for name, text in (
        ("device", "they ran on different devices"),
        ("threads", "they ran with different numbers of threads"),
        ("versions", "they ran with different versions"),
        ("fingerprint", "they had different data"),
    ):
        if a[name] != b[name] and not (pd.isna(a[name]) and pd.isna(b[name])):
            return text
    parts = {parts_of_batches(json.loads(run.get("environment") or "{}")) for run in (a, b)}
    return "batches were cut into different numbers of parts" if len(parts) > 1 else ""


def _scales(quantization: Mapping[str, Any]) -> Iterator[bool]:
    """Whether each of the scales is a power of two."""
    for name, value in quantization.items():
        if name.endswith("scaling") and isinstance(value, Mapping):
            yield bool(value.get("power_of_two", True))
