"""A section of the report: where on its grid each format holds the weights.

A format that is precise in the middle and has its weights at an end wastes its precision. How far below
the largest value they lie is what the monitor ``range`` measures.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from altgrad_core.analysis.words import listed
from altgrad_core.interfaces import Findings, NoSettings, Section
from altgrad_core.interfaces.blocks import Block, Paragraph, table

PERCENTILES = {
    "range/weight_log2_p1": "1 %",
    "range/weight_log2_p50": "half",
    "range/weight_log2_p99": "99 %",
}


class Whereabouts(Section):
    """A row per format: below which place 1 %, half and 99 % of its weights lie, and its SQNR."""

    title = "Whereabouts: where on its grid does each format hold the weights?"

    def __init__(self, settings: NoSettings) -> None:
        self.settings = settings

    def build(self, found: Findings) -> Sequence[Block]:
        places = whereabouts(found)
        if places.empty:
            return [
                Paragraph("No run has recorded where its weights lie; enable the monitor `range`.")
            ]
        places = places.join(found.formats.reindex(columns=["sqnr"]))
        deep = [f"{row.Index} {-row.half:.1f}" for row in places.itertuples()]
        return [
            Paragraph(
                f"Half of the weights lie further below the largest value than (in binades): {listed(deep)}."
            ),
            table(
                places.reset_index(names="format").to_dict("records"),
                [
                    ("Format", "format"),
                    *(
                        (f"{name} below", lambda row, name=name: _number(row[name]))
                        for name in PERCENTILES.values()
                    ),
                    ("SQNR (dB)", lambda row: _number(row["sqnr"])),
                ],
                "log2 of |w| over the largest value, in the end; mean over layers and runs. SQNR: of a normal "
                "tensor where the format wants it.",
            ),
        ]


def whereabouts(found: Findings) -> pd.DataFrame:
    """The percentiles (columns) of each format (rows)."""
    if found.layers.empty:
        return pd.DataFrame()
    rows = found.layers[found.layers["metric"].isin(PERCENTILES)]
    rows = rows.assign(place=rows["metric"].map(PERCENTILES))
    means = rows.pivot_table(index="format", columns="place", values="last", sort=False)
    return means.dropna(how="all")


def _number(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.1f}"
