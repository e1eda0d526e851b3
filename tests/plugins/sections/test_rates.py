"""The learning-rate section: a grid that is too coarse to tell conditions apart is called that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from altgrad_plugins.sections.rates import _answer


@pytest.mark.parametrize(
    ("rates", "said"),
    [((5e-4, 1e-3, 2e-3), None), ((1e-3, 3e-3, 6e-3), "a factor 3 apart")],
)
def test_a_coarse_grid_is_said(rates: tuple[float, ...], said: str | None) -> None:
    rows = [
        {"condition": "bf16_adamw", "rate": rate, "seed": 100, "censored": False} for rate in rates
    ]
    conditions = pd.DataFrame({"condition": ["bf16_adamw"]})
    found: Any = SimpleNamespace(tuning=pd.DataFrame(rows), conditions=conditions)
    text = _answer(found)
    assert ("apart" in text) == (said is not None)
    assert said is None or said in text
