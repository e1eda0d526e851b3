"""Rank stability: how much of their rank the weight matrices keep, and which lose it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altgrad_core.report.charts as charts
from altgrad_core.analysis.words import counted, named, percent
from altgrad_core.interfaces.blocks import Block, Paragraph
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.shared import BuiltIn, by_condition, measured, side_names

_RANKS = {"rank/all/effective_rank": "effective rank", "rank/all/stable_rank": "stable rank"}
"""Measures of rank, the one to be preferred first."""
_COLLAPSES = ("rank_collapse", "code_collapse")


class Ranks(BuiltIn):
    """Collapses, and the rank by step; how much of it is kept is in the main table."""

    title = "Rank stability: do weight matrices keep their rank?"

    def build(self, found: Findings) -> Sequence[Block]:
        name = _measure(found)
        if not name:
            return [Paragraph("No run has measured ranks; the monitor is called rank.")]
        data = found.curves[found.curves["metric"] == name]
        blocks: list[Block] = [Paragraph(_answer(found, _RANKS[name]))]
        if data["step"].nunique() > 1:
            data = data.assign(side=data["condition"].map(side_names(found)))
            caption = f"{_RANKS[name].capitalize()} by step, mean over the watched layers."
            blocks.append(charts.curves("ranks", caption, data, title=_RANKS[name]))
        return blocks


def _measure(found: Findings) -> str:
    return next((name for name in _RANKS if measured(found, f"{name}@last")), "")


def ranks_kept(found: Findings) -> dict[str, float]:
    """Condition -> last rank over the first, means over seeds; NaN where it was not measured."""
    first, last = (by_condition(found, f"{_measure(found)}@{end}") for end in ("first", "last"))
    return {c: last[c].mean / first[c].mean if first[c].mean else math.nan for c in first}


def _answer(found: Findings, rank: str) -> str:
    seen = found.events[found.events["kind"].isin(_COLLAPSES)]
    where = named(dict.fromkeys(map(str, seen["condition"])))
    told = "No monitor reported a collapse."
    if len(seen):
        told = f"Monitors reported {counted(len(seen), 'collapse')}, in {where}."
    kept = {c: share for c, share in ranks_kept(found).items() if not math.isnan(share)}
    if not kept:
        return told
    least, most = min(kept, key=kept.__getitem__), max(kept, key=kept.__getitem__)
    low, high = percent(kept[least]), percent(kept[most])
    if low == high:
        return f"{told} The {rank} ends at {low} % of its first value."
    return (
        f"{told} The {rank} ends at {low} % ({least}) to {high} % ({most}) of its first value. That is "
        "a description: a rank falls in every healthy training, and no threshold separates good from "
        "bad."
    )
