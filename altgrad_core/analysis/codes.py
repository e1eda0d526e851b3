"""What may be said of a tested group: the codes of the verdict, from one row of the effects.

"Equivalent" takes precedence over "benefit": an effect that is both real and smaller than the margin is
one that nobody cares about, by the declaration of the margin. A group whose treatment diverges more often
than its baseline is neither, whatever the pairs say that are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from altgrad_core.analysis.statistics import ALPHA, MIN_SEEDS


def verdict_code(row: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict of one tested group, and why, in a few words."""
    if row["refused"]:
        return "refused", str(row["refused"])
    if row["censored"]:
        return "censored", str(row["censored"])
    if row["n"] == 0:
        why = "no seed has a result on both sides"
        if row["dropped"]:
            why = "a run of every pair diverged, and the metric has no worst value"
        return "nothing to test", why
    if row["n"] < MIN_SEEDS:
        return "too few seeds", f"{row['n']} of at least {MIN_SEEDS} pairs"
    if not row["gain_std"] > 0:
        return "nothing to test", "all seeds have the same difference"
    if row["p_tost_holm"] <= ALPHA:
        verdict = "equivalent", "effects beyond the margin are ruled out"
    elif row["p_holm"] <= ALPHA and row["high"] < 0:
        return "harm", "shown to be worse"
    elif row["p_holm"] <= ALPHA and row["low"] > 0:
        verdict = "benefit", "shown to be better"
    else:
        return "undecided", "the data cannot tell"
    if row["diverged_treatment"] > row["diverged_baseline"]:
        return "undecided", "its treatment diverges more often than its baseline"
    return verdict


def needs_grid(row: Mapping[str, Any]) -> str:
    """Whether the gain of a tested group needs its grid: ``yes``, ``no``, ``undecided``, ``no reference``."""
    if not row["reference_group"]:
        return "no reference"
    if row["excess_p_holm"] <= ALPHA and row["excess_low"] > 0:
        return "yes"
    below = row["excess_p_holm"] <= ALPHA and row["excess_high"] < 0
    return "no" if below or row["excess_p_tost_holm"] <= ALPHA else "undecided"
