"""Every difference of the contrast seed by seed, each score leading to the run that it comes from."""

from __future__ import annotations

from pathlib import Path

from altgrad_core.analysis.document import Cell, Paragraph, Section, Table
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.numbers import NONE, score
from altgrad_core.analysis.tables import linked, number_table
from altgrad_core.analysis.words import metric_name

TITLE = "Differences by seed"


def section(found: Findings, folder: Path) -> Section:
    """One row per group and seed."""
    contrast = found.contrast
    if contrast is None or not any(delta.pairs for delta in found.deltas):
        return Section(TITLE, [Paragraph("There is no pair of runs yet.")])
    planned = found.planned
    places = {
        (str(condition), int(seed)): str(directory)
        for condition, seed, directory in zip(
            planned["condition"], planned["seed"], planned["directory"], strict=True
        )
    }
    censored = {one.group: one.censored for one in found.comparisons}
    rows = []
    for delta in found.deltas:
        for pair in delta.pairs:
            left = places.get((delta.place.baseline[0], pair.seed), "")
            right = places.get((delta.place.treatment[0], pair.seed), "")
            rows.append(
                (
                    Cell(delta.group),
                    Cell(str(pair.seed)),
                    linked(score(pair.baseline), left, folder),
                    linked(score(pair.treatment), right, folder),
                    Cell(
                        "censored" if censored.get(delta.group) else score(pair.delta, signed=True)
                    ),
                    Cell("yes", tone="bad") if pair.diverged else Cell(NONE),
                )
            )
    head = number_table(
        ("Group",),
        ("Seed", contrast.baseline, contrast.treatment, "Δ", "Diverged"),
    )
    caption = f"{metric_name(found.metric)}; each score leads to its run."
    return Section(TITLE, [Table(head, tuple(rows), caption)])
