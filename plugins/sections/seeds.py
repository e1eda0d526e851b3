"""Every difference of the contrast seed by seed, each score leading to the run that it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from altgrad_core.analysis.words import NONE, metric_label, score
from altgrad_core.interfaces.blocks import Block, Cell, Paragraph, Shown, table
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.shared import BuiltIn, signed, to_run


class Seeds(BuiltIn):
    """One row per group and seed."""

    title = "Differences by seed"

    def build(self, found: Findings) -> Sequence[Block]:
        asked = found.question
        if asked is None or found.pairs.empty:
            return [Paragraph("There is no pair of runs yet.")]
        place = dict(zip(found.runs["id"], found.runs["directory"], strict=True))

        def linked(side: str) -> Shown:
            return lambda row: to_run(score(row[side]), place.get(row[f"{side}_id"], ""))

        shown: list[tuple[str, Shown]] = [
            ("Group", "group"),
            ("Seed", "seed"),
            (asked.baseline, linked("baseline")),
            (asked.treatment, linked("treatment")),
            ("Gain", signed("gain")),
            ("Diverged", lambda r: Cell(r["diverged"], tone="bad") if r["diverged"] else NONE),
            ("Left out", lambda r: r["dropped"] or NONE),
        ]
        caption = f"{metric_label(found, asked.metric)}; each score leads to its run. Positive gains are better."
        return [table(found.pairs, shown, caption, words=("Diverged", "Left out"))]
