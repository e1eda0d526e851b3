"""Rank stability: how much of their rank the weight matrices keep, and which lose it."""

from __future__ import annotations

from collections.abc import Sequence

import altgrad_core.report.charts as charts
from altgrad_core.interfaces.blocks import Block, Paragraph, Table, cells
from altgrad_core.interfaces.section import Findings
from altgrad_core.report.words import NONE, counted, from_to, named, percent
from altgrad_plugins.sections.shared import BuiltIn, by_condition, head, measured, side_names

_EFFECTIVE, _STABLE = "rank/all/effective_rank", "rank/all/stable_rank"
_COLLAPSES = ("rank_collapse", "code_collapse")


class Ranks(BuiltIn):
    """First and last ranks by condition, collapses, and the ranks by step."""

    title = "Rank stability: do weight matrices keep their rank?"

    def build(self, found: Findings) -> Sequence[Block]:
        """See the class."""
        if not any(measured(found, f"{name}@last") for name in (_EFFECTIVE, _STABLE)):
            return [Paragraph("No run has measured ranks; the monitor is called rank.")]
        return [Paragraph(_answer(found)), _table(found), *_figure(found)]


def _answer(found: Findings) -> str:
    seen = found.events[found.events["kind"].isin(_COLLAPSES)]
    where = named(dict.fromkeys(map(str, seen["condition"])))
    told = (
        f"Monitors reported {counted(len(seen), 'collapse')}, in {where}."
        if len(seen)
        else "No monitor reported a collapse."
    )
    kept = {c: share for c, share in _kept(found).items() if share == share}
    if not kept:
        return told
    low, high = min(kept, key=kept.__getitem__), max(kept, key=kept.__getitem__)
    if kept[low] == kept[high]:
        return f"{told} The effective rank ends at {percent(kept[low])} % of its first value."
    return (
        f"{told} The effective rank ends at {percent(kept[low])} % ({low}) to {percent(kept[high])} % "
        f"({high}) of its first value. That is a description: a rank falls in every healthy training, "
        "and no threshold separates good from bad."
    )


def _kept(found: Findings) -> dict[str, float]:
    """Condition -> last effective rank over the first, means over seeds."""
    first, last = (by_condition(found, f"{_EFFECTIVE}@{end}") for end in ("first", "last"))
    return {c: last[c].mean / first[c].mean if first[c].mean else float("nan") for c in first}


def _table(found: Findings) -> Table:
    ends = {
        name: [by_condition(found, f"{name}@{end}") for end in ("first", "last")]
        for name in (_STABLE, _EFFECTIVE)
    }
    kept, seen = _kept(found), found.events[found.events["kind"].isin(_COLLAPSES)]
    rows = []
    for condition in map(str, found.conditions["condition"]):
        mine = seen[seen["condition"] == condition]
        rows.append(
            cells(
                condition,
                *(from_to(*(end[condition].mean for end in ends[name])) for name in ends),
                percent(kept[condition]),
                str(len(mine)) if len(seen) else NONE,
                str(mine["step"].min()) if len(mine) else NONE,
            )
        )
    numbers = ("Stable rank", "Effective rank", "Kept (%)", "Collapses", "First at step")
    caption = (
        "First → last logged value, mean over the watched layers and over seeds. Kept: share of the "
        "effective rank."
    )
    return Table(head(("Condition",), numbers), tuple(rows), caption)


def _figure(found: Findings) -> list[Block]:
    for name, title in ((_EFFECTIVE, "effective rank"), (_STABLE, "stable rank")):
        data = found.curves[found.curves["metric"] == name]
        data = data.assign(side=data["condition"].map(side_names(found)))
        if data["step"].nunique() > 1:
            caption = f"{title.capitalize()} by step, mean over the watched layers."
            return [charts.curves("ranks", caption, data, title=title)]
    return []
