"""Controls: what ought to make no difference, and how much of one it makes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from altgrad_core.interfaces.blocks import Block, Bullets, Cell, Paragraph, Table, cells
from altgrad_core.interfaces.section import Findings
from altgrad_core.report.words import (
    LEVEL,
    NONE,
    counted,
    group_names,
    interval_text,
    listed,
    metric_label,
    named,
    score,
)
from altgrad_plugins.sections.benefit import forest
from altgrad_plugins.sections.shared import BuiltIn, Row, effects, finite, head

_PLACEBOS = {
    "permuted": "each weight has the stiffness of another one of its tensor",
    "constant": "all weights of a tensor have its root mean square",
    "borrowed": "each weight has the stiffness that it would have on the grid of another format",
}


class Controls(BuiltIn):
    """A/A pairs, the identity on uniform grids, and placebos."""

    title = "Controls: does what ought to make no difference make none?"

    def build(self, found: Findings) -> Sequence[Block]:
        """See the class."""
        blocks: list[Block] = [Paragraph(_answer(found.twins))]
        if len(found.twins):
            blocks.append(_twins(found))
        said = [*_identity(found), *_placebo_words(found)]
        blocks += [Bullets(tuple(said))] if said else []
        placebos = effects(found, "placebo")
        return [*blocks, *forest(found, placebos, "placebos"), *_placebos(found, placebos)]


def _answer(twins: pd.DataFrame) -> str:
    """Whether the instrument can be trusted, as far as its A/A pairs tell."""
    if twins.empty:
        return (
            "No A/A control: the suite has no two formats with the same grid (such as e0m7 and e1m6), "
            "so nothing here shows how far apart two runs are that ought to be equal."
        )
    pairs = listed(dict.fromkeys(map(str, twins["formats"])))
    head_ = f"{pairs}: the same grid up to a power of two, so that their runs form A/A pairs. "
    count = counted(len(twins), "comparison")
    differ = twins[twins["status"] == "differ"]
    undecided = twins[twins["status"] == "undecided"]
    rest = _undecided(undecided)
    if len(differ):
        apart = score(float(differ["difference"].abs().max()))
        return (
            f"The instrument fails its control. {head_}{count}, of which {len(differ)} differ, by up "
            f"to {apart}, although equality is promised.{rest}"
        )
    if len(undecided) == len(twins):
        return f"The A/A control decides nothing. {head_}{rest.strip()}"
    equal = len(twins) - len(undecided)
    return (
        f"The instrument passes its control. {head_}{count}, {equal} of which are exactly equal: the "
        f"arithmetic adds no noise; how much a seed changes is another matter.{rest}"
    )


def _undecided(twins: pd.DataFrame) -> str:
    if twins.empty:
        return ""
    reasons = named(dict.fromkeys(map(str, twins["why"])), 3)
    return f" {counted(len(twins), 'comparison')} decide nothing: {reasons}."


def _twins(found: Findings) -> Table:
    """A row per setting: the differences in the order of the seeds."""
    rows = []
    for (formats, setting), some in found.twins.groupby(["formats", "setting"], sort=False):
        differences = ", ".join(score(float(d), signed=True) for d in some["difference"])
        statuses = dict.fromkeys(map(str, some["status"]))
        tone = Cell(listed(statuses), tone="bad" if "differ" in statuses else "plain")
        rows.append((*cells(str(formats), str(setting), differences), tone))
    metric = metric_label(found, found.question.metric) if found.question else ""
    caption = f"A/A pairs, difference in {metric}, in the order of the seeds."
    columns = (*head(("Formats", "Setting"), ("Differences by seed",)), *head(("Result",), ()))
    return Table(columns, tuple(rows), caption)


def _identity(found: Findings) -> list[str]:
    """On a uniform grid a normalised stiffness is 1 for every weight, so both sides are one."""
    known = [row for row in effects(found, "identical") if row["n"]]
    if not known:
        return []
    pairs = found.pairs[found.pairs["group"].isin([row["group"] for row in known])]
    largest = float(pairs["delta"].abs().max())
    text = (
        f"On a uniform grid ({group_names(known, known)}) the stiffness is the same for every weight "
        "of a tensor. Normalised, it is 1, so both sides are the same update by construction: "
    )
    if largest == 0:
        return [f"{text}zero by construction, and zero was measured. It is no finding."]
    return [f"{text}yet they differ by up to {score(largest)}."]


def _placebo_words(found: Findings) -> list[str]:
    kinds = dict.fromkeys(str(row["placebo"]) for row in effects(found, "placebo"))
    return [f"{kind}: {_PLACEBOS.get(kind, 'a placebo of the treatment')}." for kind in kinds]


def _placebos(found: Findings, placebos: Sequence[Row]) -> list[Block]:
    """What each placebo gains, beside the treatment that it is a placebo of."""
    if not placebos:
        return []
    tested = effects(found, "tested", "reference", "identical")
    rows = []
    for row in placebos:
        same = [t for t in tested if (t["format"], t["setting"]) == (row["format"], row["setting"])]
        rows.append(
            cells(
                str(row["group"]),
                str(row["placebo"]),
                score(row["gain"], signed=True),
                interval_text(row["low"], row["high"]),
                score(same[0]["gain"], signed=True) if same and finite(same[0]["gain"]) else NONE,
                str(int(row["n"])),
            )
        )
    numbers = ("Gain over the baseline", f"{LEVEL} interval", "Gain of the treatment", "Pairs")
    caption = (
        "Placebos are outside the family; their intervals are not adjusted. Positive is better."
    )
    return [Table(head(("Setting", "Placebo"), numbers), tuple(rows), caption)]
