"""The tidy table of a suite: one row per group, with all that may be said of it.

Columns of :func:`effects_table`, in order. Differences are treatment − baseline in the units of the
metric (``delta``), and the same oriented so that positive is better (``gain`` and all that follows).

- ``group``, ``format``, ``setting``, ``variant``: see :class:`~altgrad_core.analysis.design.Group`.
- ``role``: ``tested``; ``reference`` (bf16 or fp32 beside 8-bit formats), ``identical`` (a uniform
  grid, where the stiffness is the same for every weight of a tensor, and every seed is equal) and
  ``placebo`` are controls, outside the family. ``placebo``: which one.
- ``baseline_condition``, ``treatment_condition``, ``metric``, ``direction``.
- ``planned`` (seeds), ``n`` (pairs), ``missing`` (seeds without a pair), ``dropped`` (pairs that do
  not count, since a run diverged and the metric has no worst value), ``diverged_baseline``,
  ``diverged_treatment`` (runs).
- ``baseline``, ``baseline_std``, ``treatment``, ``treatment_std``, ``delta``: over the pairs.
- ``gain``, ``gain_std``, ``low``, ``high`` (t interval), ``p`` (paired t), ``p_sign_flip``,
  ``p_holm``, ``p_tost``, ``p_tost_holm``, ``family`` (distinct hypotheses), ``improved`` (seeds),
  ``seeds_needed`` (for an effect of the size seen, power 0.8, at the first hurdle of Holm).
- ``reference_group`` (of a placebo: the group that it is one of), ``excess`` (gain − gain of that
  group, seed by seed), ``excess_n``, ``excess_low``, ``excess_high``, ``excess_p``,
  ``excess_p_holm``, ``excess_p_tost_holm``; without p for a placebo, which is not tested.
- ``best``: whether it is the group with the largest gain of all tested ones; ``best_p``: that it gains
  more than every other, see :func:`~altgrad_core.analysis.statistics.best_p`.
- ``sampling_std``: the error of the mean gain that the choice of test examples makes.
- ``censored``, ``confounds``, ``refused``: see :mod:`~altgrad_core.analysis.audit`; empty if not.
- ``verdict``: ``benefit``, ``harm``, ``equivalent``, ``undecided``, ``too few seeds``, ``censored``,
  ``refused``, ``unfinished`` or ``nothing to test``; empty for controls. ``why``: a few words.
- ``needs_grid``: ``yes`` (the excess is above 0), ``no`` (it is below 0, or within the margin),
  ``undecided`` or ``no reference``; empty for controls.

While the suite is unfinished there is no p and no verdict. A group that is refused or censored has
estimates, no p, and counts in its families.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from altgrad_core.analysis.audit import audit
from altgrad_core.analysis.codes import needs_grid, verdict_code
from altgrad_core.analysis.design import REFERENCES, Group
from altgrad_core.analysis.execution import NAMED, untold
from altgrad_core.analysis.pairs import diverged
from altgrad_core.analysis.statistics import (
    ALPHA,
    RESOLUTION,
    best_p,
    holm,
    mean_of,
    seeds_needed,
    spread,
    summarise,
    tost_p,
)
from altgrad_core.interfaces.section import Question
from altgrad_core.results.kept import StoredTuning

_TEXT = (
    *("group", "format", "setting", "variant", "role", "placebo"),
    *("baseline_condition", "treatment_condition", "metric", "direction"),
)
_COUNTS = ("planned", "n", "missing", "dropped", "diverged_baseline", "diverged_treatment")
_NUMBERS = (
    *("baseline", "baseline_std", "treatment", "treatment_std", "delta"),
    *("gain", "gain_std", "low", "high", "p", "p_sign_flip", "p_holm", "p_tost", "p_tost_holm"),
    *("family", "improved", "seeds_needed"),
)
_EXCESS = (
    *("excess", "excess_n", "excess_low", "excess_high"),
    *("excess_p", "excess_p_holm", "excess_p_tost_holm"),
)
Row = dict[str, Any]
COLUMNS = (
    *(*_TEXT, *_COUNTS, *_NUMBERS, "reference_group", *_EXCESS, "best", "best_p", "sampling_std"),
    *("censored", "confounds", "refused", "verdict", "why", "needs_grid"),
)


def effects_table(
    groups: Sequence[Group],
    pairs: pd.DataFrame,
    question: Question,
    *,
    formats: pd.DataFrame,
    tuning: StoredTuning | None = None,
    complete: bool = True,
) -> pd.DataFrame:
    """One row per group, in the order given; the columns are described in this module.

    ``pairs`` is the table of :func:`~altgrad_core.analysis.pairs.pairs_table` for these groups,
    ``formats`` holds the facts of formats by label (and may be empty).
    """
    by_group = {group.label: pairs[pairs["group"] == group.label] for group in groups}
    rows = {g.label: _described(g, by_group[g.label], question, tuning) for g in groups}
    _set_roles(rows, groups, by_group, formats)
    executions = untold(groups)
    _set_references(rows, groups, executions)
    family = _Family(rows, groups, by_group, question.margin, formats)
    family.comparable = not executions
    family.fill(complete=complete)
    table = pd.DataFrame(list(rows.values()), columns=list(COLUMNS))
    numbers = (*_NUMBERS, *_EXCESS, "best_p", "sampling_std")
    return table.astype(dict.fromkeys(numbers, "float64") | dict.fromkeys(_COUNTS, "int64"))


def resolution_of(pairs: pd.DataFrame) -> float:
    """The range below which differences of these scores are as good as equal."""
    scores = pairs.loc[pairs["dropped"] == "", ["baseline", "treatment"]].abs().to_numpy()
    return RESOLUTION * float(np.median(scores)) if scores.size else 0.0


def _described(
    group: Group, pairs: pd.DataFrame, question: Question, tuning: StoredTuning | None
) -> Row:
    """What one group shows by itself, without any test."""
    used = pairs[pairs["dropped"] == ""]
    summary = summarise(used["gain"].tolist(), resolution=resolution_of(used))
    planned = set(group.left["seed"]) | set(group.right["seed"])
    row = {
        **dict.fromkeys(COLUMNS, math.nan),
        **dict.fromkeys(("reference_group", "verdict", "why", "needs_grid"), ""),
        **{name: getattr(group, name) for name in ("format", "setting", "variant", "placebo")},
        **{name: getattr(summary, name) for name in ("n", "low", "high", "improved")},
        **asdict(audit(group, question, tuning)),
        "best": False,
        "group": group.label,
        "metric": question.metric,
        "direction": question.declared.direction,
        "planned": len(planned),
        "missing": len(planned) - len(pairs),
        "dropped": len(pairs) - len(used),
        "delta": mean_of(used["delta"]),
        "gain": summary.mean,
        "gain_std": summary.std,
    }
    for side, runs in (("baseline", group.left), ("treatment", group.right)):
        row[f"{side}_condition"] = ", ".join(dict.fromkeys(map(str, runs["condition"])))
        row[f"diverged_{side}"] = int(diverged(runs, question.metric).sum())
        row[side], row[f"{side}_std"] = mean_of(used[side]), spread(used[side].tolist())
    return row


def _set_roles(
    rows: Mapping[str, Row],
    groups: Sequence[Group],
    pairs: Mapping[str, pd.DataFrame],
    formats: pd.DataFrame,
) -> None:
    uniform = set(formats.index[formats["uniform"].eq(True)]) if len(formats) else set()
    only_references = all(group.format in REFERENCES for group in groups)
    for group in groups:
        mine = pairs[group.label]
        role = "tested"
        if group.placebo:
            role = "placebo"
        elif group.format in REFERENCES and not only_references:
            role = "reference"
        elif group.format in uniform and len(mine):
            same = (mine["delta"] == 0) & (mine["diverged"] == "")
            role = "identical" if same.all() else "tested"
        rows[group.label]["role"] = role


def _set_references(
    rows: Mapping[str, Row], groups: Sequence[Group], executions: Mapping[str, str]
) -> None:
    """What each group is measured against: the reference in its place, or for a placebo the group
    that it is a placebo of; empty where there is none that was executed alike.
    """
    role = {label: row["role"] for label, row in rows.items()}
    in_place = {(g.place, g.format): g.label for g in groups if role[g.label] == "reference"}
    of_family = {(g.family, g.format): g.label for g in groups if role[g.label] != "placebo"}
    for group in groups:
        found = ""
        if role[group.label] == "placebo":
            found = of_family.get((group.family, group.lends or group.format), "")
        elif role[group.label] != "reference":
            labels = (in_place.get((group.place, name), "") for name in REFERENCES)
            found = next(filter(None, labels), "")
        if executions.get(found) != executions.get(group.label):
            found = ""
        rows[group.label]["reference_group"] = found
        if word := executions.get(group.label):
            told = f"{NAMED.get(word, word)}, and others are not"
            confounds = rows[group.label]["confounds"], told
            rows[group.label]["confounds"] = "; ".join(filter(None, confounds))


class _Family:
    """The tested groups among the rows, by label: fills in what is tested together."""

    def __init__(
        self,
        rows: dict[str, Row],
        groups: Sequence[Group],
        pairs: Mapping[str, pd.DataFrame],
        margin: float | None,
        formats: pd.DataFrame,
    ) -> None:
        self.rows, self.margin = rows, margin
        used = {name: mine[mine["dropped"] == ""] for name, mine in pairs.items()}
        self.gains = {
            name: dict(zip(mine["seed"].tolist(), mine["gain"].tolist(), strict=True))
            for name, mine in used.items()
        }
        self.resolution = {name: resolution_of(mine) for name, mine in used.items()}
        self.tested = [name for name, row in rows.items() if row["role"] == "tested"]
        self.comparable = True
        """Whether a group may be said to gain more than the others."""
        self.classes = _classes([g for g in groups if g.label in self.tested], formats)

    def judged(self, name: str) -> bool:
        """Whether a group's difference means anything."""
        return not (self.rows[name]["censored"] or self.rows[name]["refused"])

    def fill(self, *, complete: bool) -> None:
        """All tests and verdicts; of an unfinished suite the estimates alone."""
        excess = {name: self.excess(name) for name in self.gains}
        best, p = self.best()
        if best:
            self.rows[best]["best"] = True
        if not complete:
            for name in self.tested:
                self.rows[name]["verdict"] = "unfinished"
                self.rows[name]["why"] = "not all planned runs have a result"
            return
        if best:
            self.rows[best]["best_p"] = p
        self.test({name: list(self.gains[name].values()) for name in self.tested}, "")
        compared = {name: excess[name] for name in self.tested}
        self.test({name: v for name, v in compared.items() if v is not None}, "excess_")
        for name in self.tested:
            row = self.rows[name]
            row["verdict"], row["why"] = verdict_code(row)
            row["needs_grid"] = needs_grid(row)

    def excess(self, name: str) -> list[float] | None:
        """What a group gains beyond its reference, seed by seed; None without a reference."""
        reference = self.rows[name]["reference_group"]
        if not reference:
            return None
        if not (self.judged(name) and self.judged(reference)):
            return []
        mine, other = self.gains[name], self.gains[reference]
        values = [mine[seed] - other[seed] for seed in mine if seed in other]
        found = summarise(values, resolution=self.resolution[name])
        seen = {"excess": found.mean, "excess_n": found.n, "excess_low": found.low}
        self.rows[name] |= seen | {"excess_high": found.high}
        return values

    def test(self, values: Mapping[str, list[float]], prefix: str) -> None:
        """The t test, sign flips and equivalence of each group, with Holm over the family."""
        raw: dict[str, float] = {}
        equivalent: dict[str, float] = {}
        family = max(1, len({self.classes[name] for name in values}))
        for name, gains in values.items():
            row, shown = self.rows[name], gains if self.judged(name) else []
            found = summarise(shown, resolution=self.resolution[name])
            raw[name] = row[f"{prefix}p"] = found.p
            equivalent[name] = math.nan
            if self.margin is not None:
                equivalent[name] = tost_p(shown, self.margin, resolution=self.resolution[name])
            if not prefix:
                needed = seeds_needed(found.effect_size, alpha=ALPHA / family)
                row |= {"p_sign_flip": found.p_sign_flip, "p_tost": equivalent[name]}
                row |= {"family": family, "seeds_needed": needed}
        for column, p_values in (("p_holm", raw), ("p_tost_holm", equivalent)):
            for name, p in holm(p_values, self.classes).items():
                self.rows[name][f"{prefix}{column}"] = p

    def best(self) -> tuple[str, float]:
        """The group that gains most, and its p; NaN where a group of the family cannot be judged."""
        judged = {name: self.gains[name] for name in self.tested if self.judged(name)}
        best, p = best_p(judged, resolution=min(self.resolution.values(), default=0.0))
        return best, p if self.comparable and len(judged) == len(self.tested) else math.nan


def _classes(groups: Sequence[Group], formats: pd.DataFrame) -> dict[str, str]:
    """Group -> the first group that differs from it in nothing but the name of its grid."""
    first: dict[tuple[object, ...], str] = {}
    found = {}
    for group in groups:
        grid = formats.at[group.format, "grid"] if group.format in formats.index else ""
        key = (group.place, grid or group.label)
        found[group.label] = first.setdefault(key, group.label)
    return found
