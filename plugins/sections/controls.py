"""Controls: what ought to make no difference, and how much of one it makes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from altgrad_core.analysis.words import (
    LEVEL,
    counted,
    group_names,
    listed,
    metric_label,
    named,
    score,
)
from altgrad_core.interfaces.blocks import Block, Bullets, Cell, Paragraph, Shown, Table, table
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.benefit import forest
from altgrad_plugins.sections.shared import BuiltIn, Row, effects, finite, interval, signed

_PLACEBOS = {
    "permuted": "each weight has the stiffness of another one of its tensor",
    "constant": "all weights of a tensor have its root mean square",
    "borrowed": "each weight has the stiffness that it would have on the grid of another format",
}


class Controls(BuiltIn):
    """A/A pairs, the identity on uniform grids, and placebos."""

    title = "Controls: does what ought to make no difference make none?"

    def build(self, found: Findings) -> Sequence[Block]:
        placebos = effects(found, "placebo")
        kinds = dict.fromkeys(str(row["placebo"]) for row in placebos)
        words = [f"{kind}: {_PLACEBOS.get(kind, 'a placebo of the treatment')}." for kind in kinds]
        said = (*_identity(found), *words)
        return [
            Paragraph(_answer(found.twins)),
            *([_twins(found)] if len(found.twins) else []),
            *([Bullets(said)] if said else []),
            *forest(found, placebos, "placebos"),
            *_placebos(found, placebos),
        ]


def _answer(twins: pd.DataFrame) -> str:
    """Whether the instrument can be trusted, as far as its A/A pairs tell."""
    if twins.empty:
        return (
            "No A/A control: the suite has no two formats with the same grid (such as e0m7 and e1m6), "
            "so nothing here shows how far apart two runs are that ought to be equal."
        )
    pairs = listed(dict.fromkeys(map(str, twins["formats"])))
    head = f"{pairs}: the same grid up to a power of two, so that their runs form A/A pairs. "
    count = counted(len(twins), "comparison")
    differ, undecided = (twins[twins["status"] == status] for status in ("differ", "undecided"))
    reasons = named(dict.fromkeys(map(str, undecided["why"])), 3)
    unsettled = f"{counted(len(undecided), 'comparison')} decide nothing: {reasons}."
    rest = f" {unsettled}" * bool(len(undecided))
    if len(differ):
        apart = score(float(differ["difference"].abs().max()))
        return (
            f"The instrument fails its control. {head}{count}, of which {len(differ)} differ, by up "
            f"to {apart}, although equality is promised.{rest}"
        )
    if len(undecided) == len(twins):
        return f"The A/A control decides nothing. {head}{unsettled}"
    equal = len(twins) - len(undecided)
    return (
        f"The instrument passes its control. {head}{count}, {equal} of which are exactly equal: the "
        f"arithmetic adds no noise; how much a seed changes is another matter.{rest}"
    )


def _twins(found: Findings) -> Table:
    """A row per setting: the differences in the order of the seeds."""
    rows = [
        {"formats": formats, "setting": setting, "d": some["difference"], "s": some["status"]}
        for (formats, setting), some in found.twins.groupby(["formats", "setting"], sort=False)
    ]
    metric = metric_label(found, found.question.metric) if found.question else ""
    shown: list[tuple[str, Shown]] = [
        ("Formats", "formats"),
        ("Setting", "setting"),
        ("Differences by seed", lambda row: ", ".join(score(d, signed=True) for d in row["d"])),
        ("Result", _result),
    ]
    caption = f"A/A pairs, difference in {metric}, in the order of the seeds."
    return table(rows, shown, caption, words=("Setting", "Result"))


def _result(row: Mapping[str, Any]) -> Cell:
    statuses = dict.fromkeys(row["s"])
    return Cell(listed(statuses), tone="bad" if "differ" in statuses else "plain")


def _identity(found: Findings) -> list[str]:
    """On a uniform grid a normalised stiffness is 1 for every weight, so both sides are one."""
    known = [row for row in effects(found, "identical") if row["n"]]
    text = (
        f"On a uniform grid ({group_names(known, known)}) the stiffness is the same for every weight "
        "of a tensor. Normalised, it is 1, so both sides are the same update by construction: zero by "
        "construction, and zero was measured. It is no finding."
    )
    return [text] if known else []


def _placebos(found: Findings, placebos: Sequence[Row]) -> list[Block]:
    """What each placebo gains, beside the treatment that it is a placebo of."""
    if not placebos:
        return []
    gains = {"": math.nan} | dict(zip(found.effects["group"], found.effects["gain"], strict=True))
    shown: list[tuple[str, Shown]] = [
        ("Setting", "group"),
        ("Placebo", "placebo"),
        ("Gain over the baseline", signed("gain")),
        (f"{LEVEL} interval", interval()),
        ("Gain of the treatment", lambda row: score(gains[row["reference_group"]], signed=True)),
        ("Pairs", "n"),
    ]
    adjusted = any(finite(row["low"]) for row in placebos)
    caption = (
        f"Placebos are outside the family{'; their intervals are not adjusted' * adjusted}. Positive is "
        "better."
    )
    return [table(placebos, shown, caption, words=("Placebo",))]
