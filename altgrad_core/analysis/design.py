"""How the cells of a suite are laid out: the groups that are compared, and what they are called.

A *group* is one comparison: cells of the question's baseline against cells of its treatment that are
equal in every axis that both sides have (the *shared* axes: with the usual matrix, the format). An
axis that one side alone has, such as the site of a manifold optimizer, is its *own*: each of its
values is a *variant*, and each variant is compared with the same baseline. The axes are those that
the planner stored, along which the conditions differ independently.

Groups are named in short words: ``e5m2, grid, nearest, kahan, site both``. A word stands for
itself, ``none`` is left out, and so is what tells no groups apart; what is no word, and what one side
alone has, is named with its axis.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from altgrad_core._axis import FORMAT_AXIS, OPTIMIZER_AXIS, axis_text, is_axis
from altgrad_core.interfaces.section import Question

PLACEBOS = ("permuted", "constant", "borrowed")
"""Values of an optimizer's ``stiffness`` that drop the geometry of the weights' own grid."""
REFERENCES = ("bf16", "fp32")
"""Formats that others are compared with: the first one that a setting has."""
_STIFFNESS = ("stiffness", "borrowed_format")
"""Settings of an optimizer that say where its stiffness comes from."""
_WORD = re.compile(r"(?!true$|false$)[A-Za-z][A-Za-z0-9_-]*")
_NOTHING = ("", "none")


@dataclass(frozen=True)
class Group:
    """One comparison, and how it is named.

    Attributes:
        label: Its name, which no other group of the suite has.
        format: The format of both sides; empty where the question is about formats.
        setting: The label without the format; empty where formats are all that varies.
        variant: What tells this treatment from others of the same panel: ``site both``.
        place: Its values of all axes but the format: what a group shares with its reference.
        family: The place without the stiffness: what a group shares with its placebos.
        placebo: One of ``PLACEBOS`` where the treatment is one, else empty.
        lends: The format whose stiffness a ``borrowed`` placebo takes.
        own: The axes that one side alone has.
        left: The planned runs of the baseline.
        right: Those of the treatment.
    """

    label: str
    format: str
    setting: str
    variant: str
    place: tuple[str, ...]
    family: tuple[str, ...]
    placebo: str
    lends: str
    own: tuple[str, ...]
    left: pd.DataFrame
    right: pd.DataFrame


class Design(NamedTuple):
    """The axes of a suite but for that of its question: of both sides, and of one of them alone."""

    shared: tuple[str, ...]
    own: tuple[str, ...]


def axes_of(runs: pd.DataFrame, first: str = FORMAT_AXIS) -> list[str]:
    """The axes along which the planned runs differ, ``first`` and the format in front."""
    planned = runs[runs["planned"]]
    varying = [c for c in map(str, planned) if is_axis(c) and texts(planned, c).nunique() > 1]
    return sorted(varying, key=lambda axis: (axis != first, axis != FORMAT_AXIS))


def design_of(runs: pd.DataFrame, question: Question) -> Design:
    """Which axes both sides of the question have, and which belong to one of them alone.

    An axis that follows from the others on these two sides (a batch size that a third optimizer alone
    has twice) parts nothing: it is a difference of the sides, which the audit names.
    """
    sides = [side_of(runs, question, v) for v in (question.baseline, question.treatment)]
    axes = _independent(pd.concat(sides), [question.axis, *axes_of(runs)])
    axes.remove(question.axis)
    shared = [a for a in axes if all((texts(side, a) != "").any() for side in sides)]
    return Design(tuple(shared), tuple(axis for axis in axes if axis not in shared))


def _independent(runs: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """The axes but for those whose value follows from the ones before; the first is always kept."""
    known = pd.DataFrame({axis: texts(runs, axis) for axis in axes})
    kept: list[str] = []
    for axis in map(str, known):
        if not kept or known.groupby(kept)[axis].nunique().max() > 1:
            kept.append(axis)
    return kept


def groups_of(runs: pd.DataFrame, question: Question) -> Iterator[Group]:
    """The groups that have both sides in the plan, in the suite's order."""
    if question.axis not in runs:
        return
    left = side_of(runs, question, question.baseline)
    right = side_of(runs, question, question.treatment)
    if left.empty or right.empty:
        return
    laid, planned = design_of(runs, question), runs[runs["planned"]]
    names = zip(keys(planned, laid.shared), planned["format"].astype(str), strict=True)
    formats = {key: name for key, name in names if name and question.axis != FORMAT_AXIS}
    lefts, rights = _by(left, laid.shared), _by(right, laid.shared)
    for key, panel in _panels(planned, laid.shared).items():
        if key in lefts and key in rights:
            for baseline in _by(lefts[key], laid.own).items():
                for treatment in _by(rights[key], laid.own).items():
                    yield _group(panel, formats.get(key, ""), laid, key, baseline, treatment)


def panels_of(runs: pd.DataFrame, question: Question | None) -> dict[str, tuple[str, str]]:
    """Condition -> its panel, and its side: ``baseline``, ``treatment`` or empty."""
    planned = runs[runs["planned"]]
    if question is None or question.axis not in runs:
        return {str(condition): ("", "") for condition in planned["condition"]}
    laid = design_of(runs, question)
    panels = _panels(planned, laid.shared)
    sides = {question.baseline: "baseline", question.treatment: "treatment"}
    where = zip(keys(planned, laid.shared), texts(planned, question.axis), strict=True)
    known = [(panels[key], sides.get(value, "")) for key, value in where]
    return dict(zip(map(str, planned["condition"]), known, strict=True))


def settings_of(runs: pd.DataFrame) -> dict[str, str]:
    """Condition -> what it is but for its format, in short words: ``manifold_adamw, site both``.

    The optimizer alone where nothing but formats varies.
    """
    planned = runs[runs["planned"]].drop_duplicates("condition")
    axes = [axis for axis in axes_of(runs, OPTIMIZER_AXIS) if axis != FORMAT_AXIS]
    rows = [dict(zip(axes, key, strict=True)) for key in keys(planned, axes)]
    found = zip(planned["condition"], short_labels(axes, rows), planned["optimizer"], strict=True)
    return {str(condition): label or str(optimizer) for condition, label, optimizer in found}


def short_labels(axes: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """A label for each row: axes are added only where the label so far does not tell rows apart."""
    words: dict[str, int] = defaultdict(int)
    partial = {axis for axis in axes if any(row[axis] == "" for row in rows)}
    for axis in axes:
        for value in {row[axis] for row in rows}:
            words[value] += 1 + (axis in partial)  # what only some have is named with its axis
    labels = ["" for _ in rows]
    for axis in axes:
        seen: dict[str, set[str]] = defaultdict(set)
        for label, row in zip(labels, rows, strict=True):
            seen[label].add(row[axis])
        more = [_shared_text(axis, row[axis], axes, words) for row in rows]
        labels = [
            ", ".join(filter(None, (label, text))) if len(seen[label]) > 1 else label
            for label, text in zip(labels, more, strict=True)
        ]
    if len(set(labels)) == len({tuple(row[axis] for axis in axes) for row in rows}):
        return labels
    return [", ".join(f"{_short(a, axes)}={row[a] or '–'}" for a in axes) for row in rows]


def keys(runs: pd.DataFrame, axes: Sequence[str]) -> list[tuple[str, ...]]:
    """Each run's values of the axes, as text; empty where the run is not on the axis."""
    columns = [texts(runs, axis) for axis in axes]
    return list(zip(*columns, strict=True)) if axes else [()] * len(runs)


def side_of(runs: pd.DataFrame, question: Question, value: str) -> pd.DataFrame:
    """The planned runs with that value of the question's axis."""
    planned = runs[runs["planned"]]
    return planned[texts(planned, question.axis) == value]


def texts(runs: pd.DataFrame, axis: str) -> pd.Series[str]:
    """Each run's value of an axis, as text; empty where the run is not on the axis."""
    values = runs[axis] if axis in runs else [None] * len(runs)
    found = ["" if pd.isna(value) else axis_text(value) for value in values]
    return pd.Series(found, index=runs.index, dtype=object)


def _panels(planned: pd.DataFrame, shared: Sequence[str]) -> dict[tuple[str, ...], str]:
    """The name of each combination of the shared axes, in order of appearance."""
    if not shared:
        return {} if planned.empty else {(): str(planned["format"].iloc[0])}
    found = list(dict.fromkeys(keys(planned, shared)))
    rows = [dict(zip(shared, key, strict=True)) for key in found]
    return dict(zip(found, short_labels(shared, rows), strict=True))


_Variant = tuple[tuple[str, ...], pd.DataFrame]
"""Values of the axes that one side alone has, and the runs that have them."""


def _by(runs: pd.DataFrame, axes: Sequence[str]) -> dict[tuple[str, ...], pd.DataFrame]:
    """The runs by their values of the axes, in order of appearance."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, key in enumerate(keys(runs, axes)):
        found[key].append(place)
    return {key: runs.iloc[places] for key, places in found.items()}


def _group(
    panel: str,
    fmt: str,
    laid: Design,
    key: tuple[str, ...],
    baseline: _Variant,
    treatment: _Variant,
) -> Group:
    own, base = _own_label(treatment[0], laid.own), _own_label(baseline[0], laid.own)
    label = ", ".join(filter(None, [panel, own, base and f"against {base}"]))
    shared = tuple(v for a, v in zip(laid.shared, key, strict=True) if a != FORMAT_AXIS)
    stiffness = [axis for axis in laid.own if _last(axis).startswith(_STIFFNESS)]
    rest = (v for a, v in zip(laid.own, treatment[0], strict=True) if a not in stiffness)
    placebo, lends = _placebo(treatment[1]) if stiffness else ("", "")
    return Group(
        label=label,
        format=fmt,
        setting="" if label == fmt else label.removeprefix(f"{fmt}, "),
        variant=own,
        place=(*shared, *baseline[0], *treatment[0]),
        family=(*shared, *baseline[0], *rest),
        placebo=placebo,
        lends=lends,
        own=laid.own,
        left=baseline[1],
        right=treatment[1],
    )


def _placebo(runs: pd.DataFrame) -> tuple[str, str]:
    """Which placebo the treatment is, and whose stiffness it borrows; empty for none."""
    found = {"": ""}
    for axis in (a for a in map(str, runs) if a.startswith("optimizer.")):
        found[_last(axis)] = next((text for text in texts(runs, axis) if text), "")
    for settings in filter(None, runs.get("settings", ())):
        given = json.loads(settings)["optimizer"]["settings"]
        found |= {name: axis_text(given[name]) for name in _STIFFNESS if name in given}
    kind = next((one for one in PLACEBOS if found.get(_STIFFNESS[0]) == one), "")
    return kind, found.get(_STIFFNESS[1], "") if kind == "borrowed" else ""


def _last(axis: str) -> str:
    return axis.rpartition(".")[2]


def _own_label(values: Sequence[str], axes: Sequence[str]) -> str:
    """What one side alone has, named: ``site both, max_stiffness=10``."""
    known = zip(axes, values, strict=True)
    return ", ".join(_named(axis, value, axes) for axis, value in known if value not in _NOTHING)


def _shared_text(axis: str, value: str, axes: Sequence[str], words: Mapping[str, int]) -> str:
    if value in _NOTHING:
        return ""
    if axis == FORMAT_AXIS or (_WORD.fullmatch(value) and words[value] == 1):
        return value
    return _named(axis, value, axes)


def _named(axis: str, value: str, axes: Sequence[str]) -> str:
    return f"{_short(axis, axes)}{' ' if _WORD.fullmatch(value) else '='}{value}"


def _short(axis: str, axes: Sequence[str]) -> str:
    return _last(axis) if [_last(one) for one in axes].count(_last(axis)) == 1 else axis
