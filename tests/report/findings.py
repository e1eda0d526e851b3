"""Findings by hand: enough for a report to be made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.section import Findings

TABLES = (
    *("runs", "conditions", "pairs", "effects", "companions", "twins"),
    *("layers", "events", "curves", "tuning", "formats"),
)
METRIC = Metric("accuracy", "Accuracy", "higher", worst=0.0, primary=True)
SCORE = "final/test/accuracy"


def made(**more: Any) -> Findings:
    """Findings with empty tables, but for what is given."""
    found = Findings(
        suite="toy",
        question=None,
        metrics=(METRIC,),
        complete=True,
        verdict=("Nothing is shown.", "Seeds are few."),
        **{name: pd.DataFrame() for name in TABLES},
    )
    return replace(found, **more)
