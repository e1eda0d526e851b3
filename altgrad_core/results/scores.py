"""The declarations of a results table's metrics, which travel with it: worst values, directions.

:func:`~altgrad_core.results.collect.results_table` puts them into ``table.attrs``, suite by suite, as
plain data (so that they survive a parquet file); pandas hands them on to every selection of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from altgrad_core.interfaces.metric import Metric, declared

_KEY = "metrics"


def with_declarations(table: pd.DataFrame, suites: Mapping[str, Iterable[Metric]]) -> pd.DataFrame:
    """The table, knowing what the tasks of each suite (by its name) measure."""
    found = {name: [asdict(metric) for metric in metrics] for name, metrics in suites.items()}
    table.attrs[_KEY] = found
    return table


def declaration(runs: pd.DataFrame, column: str) -> Metric | None:
    """What is declared of a column of these runs, which are of one suite; None where nothing is."""
    names = list(runs["suite"].unique()) if "suite" in runs else []
    known: dict[str, list[dict[str, Any]]] = runs.attrs.get(_KEY, {})
    metrics = [Metric(**one) for name in names for one in known.get(name, ())]
    return declared(column, metrics)


def worst_score(metric: Metric | None) -> float:
    """What a diverged run counts as; NaN where there is no worst value."""
    return math.nan if metric is None or metric.worst is None else metric.worst
