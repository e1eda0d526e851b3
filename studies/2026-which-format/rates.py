"""What the treatment gains where both sides run at one rate, part by part, from the tables of the reports.

``python rates.py`` reads ``tuning.csv`` and ``effects.csv`` of every part, which ``make reports`` writes, and writes
``rates.csv``, and as a picture ``rates.svg``: for each part and rate the mean over its groups of the gain in the tuning
runs (validation data, three seeds; described, not tested), its standard error over the groups, how many of them gain,
and the baseline's score, all in the metric that tuning judged by: micro-F1, or the perplexity of the language model.
Placebos and e0m7, which is identical by construction, do not enter.
"""

from __future__ import annotations

from pathlib import Path

import altair as alt
import pandas as pd

HERE = Path(__file__).parent
LEFT_OUT = ("identical", "placebo")


def gains(report: Path) -> pd.DataFrame:
    """A row for each group and rate: ``baseline``, the score, and ``gain``, both means over tuning seeds."""
    tuning, effects = pd.read_csv(report / "tuning.csv"), pd.read_csv(report / "effects.csv")
    known = tuning[tuning["diverged"] == 0]  # the rest is no measure of a gain
    scores = known.pivot_table(index="condition", columns="rate", values="score")
    groups = effects[~effects["role"].isin(LEFT_OUT)]
    sign = groups["direction"].map({"higher": 1, "lower": -1}).to_numpy()[:, None]
    before, after = (
        scores.loc[groups[f"{side}_condition"]].set_index(groups["group"])
        for side in ("baseline", "treatment")
    )
    found = {"baseline": before.stack(), "gain": ((after - before) * sign).stack()}
    return pd.DataFrame(found).reset_index()


def table(report: Path) -> pd.DataFrame:
    """A row for each rate of a part."""
    by = gains(report).groupby("rate")
    found = {
        "groups": by.size(),
        "baseline": by["baseline"].mean(),
        "gain": by["gain"].mean(),
        "standard error": by["gain"].sem(),
        "gaining": by["gain"].agg(lambda known: int((known > 0).sum())),
    }
    return pd.DataFrame(found).reset_index().assign(part=report.name)


def picture(found: pd.DataFrame) -> alt.FacetChart:
    """The gain by rate, a panel for each part, with a standard error to each side."""
    data = found.assign(
        low=found["gain"] - found["standard error"], high=found["gain"] + found["standard error"]
    )
    rates = alt.X("rate", type="ordinal", title="learning rate of both").axis(labelAngle=0)
    base = alt.Chart(data).encode(x=rates)
    line = base.mark_line(point=True).encode(y=alt.Y("gain", title="gain"))
    layers = alt.layer(base.mark_rule().encode(y="low", y2="high"), line)
    panels = layers.properties(width=240, height=130).facet(
        alt.Facet("part", title=None), columns=3
    )
    return panels.resolve_scale(x="independent", y="independent")


def main() -> None:
    """Write the table and the picture beside this file."""
    reports = sorted(path.parent for path in (HERE / "reports").glob("*/tuning.csv"))
    found = pd.concat(map(table, reports))
    found.set_index("part").to_csv(HERE / "rates.csv")
    picture(found).save(HERE / "rates.svg")


if __name__ == "__main__":
    main()
