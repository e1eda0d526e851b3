"""Two one-sided tests (TOST): "no effect" as a finding, where a large p alone would say nothing.

A difference that is not significant may be absent or merely unseen. TOST turns the burden of proof
around: the null hypothesis is an effect *at least as large as a margin*, in either direction, and
small p-values reject it. The margin is the smallest effect that anyone would care about, in the
units of the metric. It must be declared before the runs: chosen afterwards, it decides the answer.
``smallest_margin`` says what the data would have supported, so that readers can apply their own.

Source: Schuirmann 1987, *Journal of Pharmacokinetics and Biopharmaceutics* 15, 657-680.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

from altgrad_core.analysis.paired import PairedSummary


@dataclass(frozen=True)
class Equivalence:
    """The equivalence test of one group.

    Attributes:
        margin: The effect that counts as none, in the units of the metric.
        p: The larger p of the two one-sided t tests; NaN where the summary is degenerate.
        low: Lower end of the ``1 − 2·alpha`` t interval, the one that TOST compares with the
            margin; NaN below 2 differences.
        high: Upper end of it.
        alpha: The level of each one-sided test.
    """

    margin: float
    p: float
    low: float
    high: float
    alpha: float

    @property
    def smallest_margin(self) -> float:
        """The smallest margin with ``p ≤ alpha``: data rule out effects beyond it; NaN if none."""
        return math.nan if math.isnan(self.p) else max(abs(self.low), abs(self.high))


def tost(summary: PairedSummary, margin: float, *, alpha: float = 0.05) -> Equivalence:
    """Test that the mean difference lies within ±``margin``.

    ``p = max(P(T ≥ (mean + margin) / se), P(T ≤ (mean − margin) / se))`` with n − 1 degrees of
    freedom. ``p ≤ alpha`` if and only if the ``1 − 2·alpha`` interval lies within ±margin.

    Raises:
        ValueError: For a margin that is not a finite number above 0, or alpha outside (0, 0.5).
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"the margin must be a finite number above 0, not {margin}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and 0.5, not {alpha}")
    mean = summary.mean
    if summary.degenerate:
        low, high = summary.low, summary.high
        return Equivalence(margin, math.nan, low, high, alpha)
    error, dof = summary.standard_error, summary.n - 1
    above_low = float(special.stdtr(dof, -(mean + margin) / error))
    below_high = float(special.stdtr(dof, (mean - margin) / error))
    half = float(special.stdtrit(dof, 1 - alpha)) * error
    return Equivalence(margin, max(above_low, below_high), mean - half, mean + half, alpha)
