"""Which measured quantity orders the benefit: a straight line for each candidate of DECLARATION.md.

``python why.py results/stochastic-400.zip`` writes ``why.csv`` (a row per format: gain and candidates),
``candidates.csv`` (by their leave-one-out error) and ``why.svg`` (the gain over the best of them).
"""

from __future__ import annotations

import sys
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd

from altgrad_core import load_results

SCORE = "final/test/f1_micro_tuned"
MANTISSA_BITS = {"e2m5": 5, "e3m4": 4, "e4m3": 3, "e5m2": 2, "e6m1": 1, "e7m0": 0}
MEASURED = {
    "stall ratio": "flips/all/stall_ratio@mean",
    "SNR of the step (dB)": "updates/all/sr_snr_db@mean",
    "quality of the update": "updates/all/quality@mean",
}
SPREAD = "spread of S (binades)"
RIVAL = "mantissa bits"


def table(archive: str) -> pd.DataFrame:
    """A row per format of the family: mean gain, its standard error, and the candidates on the baseline's runs."""
    runs = load_results(archive)
    runs = runs[(runs["stage"] == "final") & runs["format"].isin(list(MANTISSA_BITS))]
    if "optimizer.stiffness" in runs:  # placebos
        runs = runs[~runs["optimizer.stiffness"].isin(["permuted", "borrowed"])]
    scores = runs.pivot_table(index=["format", "seed"], columns="optimizer", values=SCORE)
    gains = (scores["manifold_adamw"] - scores["adamw"]).groupby(level="format", sort=False)
    base = runs[runs["optimizer"] == "adamw"]
    spread = base["stiffness/all/log2_q95@mean"] - base["stiffness/all/log2_q05@mean"]
    measured = base[list(MEASURED.values())].set_axis(list(MEASURED), axis=1)
    measured = measured.assign(**{SPREAD: spread}).groupby(base["format"]).mean()
    found = pd.DataFrame({"gain": gains.mean(), "standard error": gains.sem()}).join(measured)
    found[RIVAL] = found.index.map(MANTISSA_BITS)
    return found.sort_values(RIVAL)


def leave_one_out(x: np.ndarray, y: np.ndarray) -> float:
    """Root mean square error of predicting each value by the line through all others."""
    errors = []
    for left in range(len(x)):
        rest = np.arange(len(x)) != left
        errors.append(y[left] - np.polyval(np.polyfit(x[rest], y[rest], 1), x[left]))
    return float(np.sqrt(np.mean(np.square(errors))))


def candidates(found: pd.DataFrame) -> pd.DataFrame:
    """A row per candidate, best first: its line, rank correlation and error; the rival and no line at all beside."""
    y = found["gain"].to_numpy()
    rows = []
    for name in [*MEASURED, SPREAD, RIVAL]:
        x = found[name].to_numpy()
        slope, level = np.polyfit(x, y, 1)
        rho = found[name].corr(found["gain"], method="spearman")
        rows.append((name, slope, level, rho, leave_one_out(x, y)))
    n = len(y)
    rows.append(("none: the mean of the others", 0.0, y.mean(), np.nan, y.std() * n / (n - 1)))
    columns = ["candidate", "slope", "level", "Spearman's rho", "leave-one-out error"]
    return pd.DataFrame(rows, columns=columns).sort_values("leave-one-out error")


def picture(found: pd.DataFrame, name: str) -> alt.LayerChart:
    """The gain of each format over a candidate, with a standard error to each side."""
    data = found.reset_index()
    data["low"], data["high"] = (
        data["gain"] - data["standard error"],
        data["gain"] + data["standard error"],
    )
    base = alt.Chart(data).encode(x=alt.X(name, type="quantitative").scale(zero=False))
    points = base.mark_point(filled=True, size=70).encode(y=alt.Y("gain", title="gain in micro-F1"))
    bars = base.mark_rule().encode(y="low", y2="high")
    names = base.mark_text(align="left", dx=8, dy=-6).encode(y="gain", text="format")
    return alt.layer(bars, points, names).properties(width=420, height=280)


def main(archive: str) -> None:
    """Write the three files beside this one."""
    here = Path(__file__).parent
    found = table(archive)
    ranked = candidates(found)
    found.to_csv(here / "why.csv")
    ranked.to_csv(here / "candidates.csv", index=False)
    best = next(name for name in ranked["candidate"] if name in found and name != RIVAL)
    picture(found, best).save(here / "why.svg")
    print(found.to_string(), ranked.to_string(index=False), sep="\n\n")


if __name__ == "__main__":
    main(sys.argv[1])
