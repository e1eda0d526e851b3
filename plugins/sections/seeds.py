"""Every difference of the contrast seed by seed, each score leading to the run that it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from altgrad_core.interfaces.blocks import Block, Cell, Paragraph, Table
from altgrad_core.interfaces.section import Findings
from altgrad_core.report.words import NONE, metric_label, score
from altgrad_plugins.sections.shared import BuiltIn, head, records, to_run


class Seeds(BuiltIn):
    """One row per group and seed."""

    title = "Differences by seed"

    def build(self, found: Findings) -> Sequence[Block]:
        """See the class."""
        asked = found.question
        if asked is None or found.pairs.empty:
            return [Paragraph("There is no pair of runs yet.")]
        place = dict(zip(found.runs["id"], found.runs["directory"], strict=True))
        rows = tuple(
            (
                Cell(str(row["group"])),
                Cell(str(row["seed"])),
                to_run(score(row["baseline"]), place.get(row["baseline_id"], "")),
                to_run(score(row["treatment"]), place.get(row["treatment_id"], "")),
                Cell(score(row["gain"], signed=True)),
                Cell(str(row["diverged"]) or NONE, tone="bad" if row["diverged"] else "plain"),
                Cell(str(row["dropped"]) or NONE),
            )
            for row in records(found.pairs)
        )
        columns = (
            *head(("Group",), ("Seed", asked.baseline, asked.treatment, "Gain")),
            *head(("Diverged", "Left out"), ()),
        )
        caption = f"{metric_label(found, asked.metric)}; each score leads to its run. Positive gains are better."
        return [Table(columns, rows, caption)]
