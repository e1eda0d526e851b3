"""What part H should show, said before it is run, and afterwards what it did show.

``python predict.py results/stochastic-400.zip results/probe-400.zip`` writes ``predictions.csv``: for each unseen
format what plain adamw measured in the probe, at the rate that is best there, and the gain that a line through the
six formats of part A gives for it, by that quantity and by the rival of DECLARATION.md.
``python predict.py results/unseen-400.zip`` sets the gains that were measured beside them, in ``predicted.csv``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from why import MEASURED, RIVAL, SCORE, candidates, table

from altgrad_core import load_results

HERE = Path(__file__).parent
JUDGED = "final/validation/f1_micro_tuned"
NONE = "none"


def probed(archive: str, column: str) -> pd.Series:
    """What the runs of each unseen format measured in the mean, at the rate with the best mean validation score."""
    runs = load_results(archive)
    runs = runs[runs["format"] != "bf16"]
    of_rate = runs.groupby(["format", "training.learning_rate"])[[JUDGED, column]].mean()
    return of_rate.loc[of_rate.groupby(level="format")[JUDGED].idxmax(), column].droplevel(1)


def mantissa_bits(name: str) -> int:
    """``exmy (exponent_bits=3, mantissa_bits=6)`` has 6."""
    return int(name.split("mantissa_bits=")[1].rstrip(")"))


def predict(seen: str, probe: str) -> pd.DataFrame:
    """A row per unseen format: the quantity that orders the gains of part A, the rival, and a prediction by each."""
    known = table(seen)
    ranked = candidates(known)["candidate"]
    best = next(name for name in ranked if name in MEASURED)
    found = probed(probe, MEASURED[best]).rename(best).to_frame()
    found[RIVAL] = found.index.map(mantissa_bits)
    for name in (best, RIVAL):
        line = np.polyfit(known[name], known["gain"], 1)
        found[f"predicted by {name}"] = np.polyval(line, found[name])
    found[f"predicted by {NONE}"] = known["gain"].mean()
    return found


def judge(unseen: str) -> pd.DataFrame:
    """The predictions with the gain that was measured, and below them the root mean square error of each."""
    found = pd.read_csv(HERE / "predictions.csv", index_col="format")
    runs = load_results(unseen)
    scores = runs[runs["stage"] == "final"].pivot_table(
        index=["format", "seed"], columns="optimizer", values=SCORE
    )
    gains = (scores["manifold_adamw"] - scores["adamw"]).groupby(level="format")
    found["gain"], found["standard error"] = gains.mean(), gains.sem()
    guesses = found.filter(like="predicted by")
    errors = guesses.sub(found["gain"], axis=0).pow(2).mean().pow(0.5)
    return pd.concat([found, errors.to_frame("root mean square error").T])


def main(*archives: str) -> None:
    """Predict from two archives, judge by one."""
    name, found = (
        ("predicted.csv", judge(*archives))
        if len(archives) == 1
        else ("predictions.csv", predict(*archives))
    )
    found.to_csv(HERE / name, index_label="format")
    print(found.to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
