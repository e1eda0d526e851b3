"""Correlations over formats, against scipy's coefficient and all permutations one by one."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from altgrad_plugins.sections.properties import correlations


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_and_its_exact_p(ties: bool) -> None:
    noise = np.random.default_rng(3)
    x, y = noise.normal(size=6), noise.normal(size=6)
    if ties:
        y[1], x[2] = y[0], x[3]
    found = correlations(pd.Series(x), pd.DataFrame({"bits": y})).loc["bits"]
    rho = stats.spearmanr(x, y).statistic
    all_of_them = [stats.spearmanr(np.array(one), y).statistic for one in permutations(x)]
    sides = [np.mean(sign * np.array(all_of_them) >= sign * rho - 1e-9) for sign in (1, -1)]
    assert found["n"] == 6
    assert found["rho"] == pytest.approx(rho)
    assert found["p"] == pytest.approx(min(1.0, 2 * min(sides)))


def test_what_does_not_vary_has_no_correlation() -> None:
    found = correlations(pd.Series([1.0, 2.0, 3.0]), pd.DataFrame({"bits": [4.0, 4.0, 4.0]}))
    assert math.isnan(found.loc["bits", "rho"])
    assert math.isnan(found.loc["bits", "holm"])
