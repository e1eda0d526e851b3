"""How the cells of a suite are laid out: the axes that matter, and the groups that are compared.

A *group* is one comparison: cells of the contrast's baseline against cells of its treatment that
are equal in every axis that both sides have (the *shared* axes: with the usual matrix, the format).
An axis that one side alone has, such as the site of a manifold optimizer, is its *own*: each of its
values is a *variant*, and each variant is compared with the same baseline.

Groups are named in short words: ``e5m2, grid, nearest, kahan, site both``. A word stands for
itself, ``none`` is left out, and so is what tells no groups apart; what is no word, and what one side
alone has, is named with its axis.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from altgrad_core.results.collect import FORMAT_AXIS, OPTIMIZER_AXIS, is_axis
from altgrad_core.results.stored import Contrast

PLACEBOS = ("permuted", "constant")
"""Values of an optimizer's ``stiffness`` that keep the size of its steps and drop the geometry."""
_PLACEBO_AXIS = "optimizer.stiffness"
_WORD = re.compile(r"(?!true$|false$)[A-Za-z][A-Za-z0-9_-]*")
_NOTHING = ("", "none")


@dataclass(frozen=True)
class Group:
    """One comparison of the contrast, and how it is named.

    Attributes:
        label: Its name, which no other group of the suite has.
        panel: The name of what both sides share.
        format: The format of both sides.
        setting: The label without the format; empty where formats are all that varies.
        variant: What tells this treatment from others of the same panel: ``site both``.
        family: The variant without its stiffness: what it shares with its placebos.
        placebo: ``permuted`` or ``constant`` where the treatment is a placebo, else empty.
        baseline: The condition (or conditions) of the baseline.
        treatment: Likewise.
    """

    label: str
    panel: str = ""
    format: str = ""
    setting: str = ""
    variant: str = ""
    family: str = ""
    placebo: str = ""
    baseline: tuple[str, ...] = ()
    treatment: tuple[str, ...] = ()


@dataclass(frozen=True)
class Design:
    """The axes of a suite: those that both sides of its contrast have, and those that one has."""

    shared: tuple[str, ...]
    own: tuple[str, ...]


def axes_of(results: pd.DataFrame, first: str = FORMAT_AXIS) -> list[str]:
    """The matrix axes along which the planned runs differ independently, ``first`` in front.

    An axis whose value follows from those before it (a learning rate zipped to the optimizer) is
    left out: runs that differ in nothing but one axis then have equal values in all others.
    """
    planned = results[results["planned"]]
    varying = [c for c in map(str, planned) if is_axis(c) and texts(planned, c).nunique() > 1]
    kept: list[str] = []
    for axis in sorted(varying, key=lambda axis: (axis != first, axis != FORMAT_AXIS)):
        values: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for key, value in zip(keys(planned, kept), texts(planned, axis), strict=True):
            values[key].add(value)
        if any(len(found) > 1 for found in values.values()):
            kept.append(axis)
    return kept


def design(results: pd.DataFrame, contrast: Contrast) -> Design:
    """Which axes both sides of the contrast have, and which belong to one of them alone."""
    axes = [axis for axis in axes_of(results, contrast.axis) if axis != contrast.axis]
    sides = [side_of(results, contrast, value) for value in (contrast.baseline, contrast.treatment)]
    shared = [a for a in axes if all((texts(side, a) != "").any() for side in sides)]
    return Design(tuple(shared), tuple(axis for axis in axes if axis not in shared))


def groups(results: pd.DataFrame, contrast: Contrast) -> list[Group]:
    """The groups that have both sides in the plan, in the suite's order."""
    return [group for group, *_ in grouped(results, contrast)]


def grouped(
    results: pd.DataFrame, contrast: Contrast
) -> Iterator[tuple[Group, pd.DataFrame, pd.DataFrame]]:
    """Each group with the planned runs of its baseline and of its treatment."""
    if contrast.axis not in results:
        return
    left = side_of(results, contrast, contrast.baseline)
    right = side_of(results, contrast, contrast.treatment)
    if left.empty or right.empty:
        return
    laid, planned = design(results, contrast), results[results["planned"]]
    panels = panel_labels(planned, laid)
    formats = dict(zip(keys(planned, laid.shared), planned["format"].astype(str), strict=True))
    for key, panel in panels.items():
        for baseline in _variants(_at(left, laid.shared, key), laid.own):
            for treatment in _variants(_at(right, laid.shared, key), laid.own):
                group = _group(panel, formats[key], laid, contrast, baseline, treatment)
                yield group, baseline[1], treatment[1]


def panel_labels(runs: pd.DataFrame, laid: Design) -> dict[tuple[str, ...], str]:
    """The name of each combination of the shared axes, in order of appearance."""
    found = list(dict.fromkeys(keys(runs, laid.shared)))
    rows = [dict(zip(laid.shared, key, strict=True)) for key in found]
    if not laid.shared:
        return dict(zip(keys(runs, ()), runs["format"], strict=True))
    return dict(zip(found, short_labels(laid.shared, rows), strict=True))


def settings_of(results: pd.DataFrame) -> dict[str, str]:
    """Condition -> what it is but for its format, in short words: ``manifold_adamw, site both``.

    The optimizer alone where nothing but formats varies.
    """
    planned = results[results["planned"]].drop_duplicates("condition")
    axes = [axis for axis in axes_of(results, OPTIMIZER_AXIS) if axis != FORMAT_AXIS]
    rows = [dict(zip(axes, key, strict=True)) for key in keys(planned, axes)]
    found = zip(planned["condition"], short_labels(axes, rows), planned["optimizer"], strict=True)
    return {str(condition): label or str(optimizer) for condition, label, optimizer in found}


def own_label(row: Mapping[str, str], axes: Sequence[str]) -> str:
    """What one side alone has, named: ``site both, max_stiffness=10``."""
    values = ((axis, row[axis]) for axis in axes)
    return ", ".join(_named(axis, value, axes) for axis, value in values if value not in _NOTHING)


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
        labels = [
            _joined(label, _shared_text(axis, row[axis], axes, words))
            if len(seen[label]) > 1
            else label
            for label, row in zip(labels, rows, strict=True)
        ]
    if len(set(labels)) == len({tuple(row[axis] for axis in axes) for row in rows}):
        return labels
    return [", ".join(f"{_short(a, axes)}={row[a] or '–'}" for a in axes) for row in rows]


def keys(runs: pd.DataFrame, axes: Sequence[str]) -> list[tuple[str, ...]]:
    """Each run's values of the axes, as text; empty where the run is not on the axis."""
    columns = [texts(runs, axis) for axis in axes]
    return list(zip(*columns, strict=True)) if axes else [()] * len(runs)


def side_of(results: pd.DataFrame, contrast: Contrast, value: str) -> pd.DataFrame:
    """The planned runs with that value of the contrast's axis."""
    planned = results[results["planned"]]
    return planned[texts(planned, contrast.axis) == value]


def texts(runs: pd.DataFrame, axis: str) -> pd.Series[str]:
    """Each run's value of an axis as suites write it; empty where the run is not on the axis."""
    """The values of an axis as text; empty where the runs are not on it."""
    if axis not in runs:
        return pd.Series("", index=runs.index, dtype=object)
    return pd.Series([_text(value) for value in runs[axis]], index=runs.index, dtype=object)


def _at(runs: pd.DataFrame, axes: Sequence[str], key: tuple[str, ...]) -> pd.DataFrame:
    return runs.loc[runs.index[[found == key for found in keys(runs, axes)]]]


def _variants(
    runs: pd.DataFrame, own: Sequence[str]
) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    for key in dict.fromkeys(keys(runs, own)):
        yield dict(zip(own, key, strict=True)), _at(runs, own, key)


def _group(
    panel: str,
    fmt: str,
    laid: Design,
    contrast: Contrast,
    baseline: tuple[dict[str, str], pd.DataFrame],
    treatment: tuple[dict[str, str], pd.DataFrame],
) -> Group:
    own, base = own_label(treatment[0], laid.own), own_label(baseline[0], laid.own)
    rest = [axis for axis in laid.own if axis != _PLACEBO_AXIS]
    label = ", ".join(filter(None, [panel, own, base and f"against {base}"]))
    kinds = texts(treatment[1], _PLACEBO_AXIS) if _PLACEBO_AXIS in treatment[1] else ()
    placebo = next((kind for kind in kinds if kind in PLACEBOS), "")
    return Group(
        label=label,
        panel=panel,
        format=fmt,
        setting=_without(fmt, label),
        variant=own,
        family=", ".join(filter(None, [own_label(treatment[0], rest), base])),
        placebo="" if contrast.axis == _PLACEBO_AXIS else placebo,
        baseline=tuple(dict.fromkeys(baseline[1]["condition"])),
        treatment=tuple(dict.fromkeys(treatment[1]["condition"])),
    )


def _text(value: object) -> str:
    """A whole number may have become a float, since a gap is NaN: it is shown as it was."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _shared_text(axis: str, value: str, axes: Sequence[str], words: Mapping[str, int]) -> str:
    if value in _NOTHING:
        return ""
    if axis == FORMAT_AXIS or (_WORD.fullmatch(value) and words[value] == 1):
        return value
    return _named(axis, value, axes)


def _named(axis: str, value: str, axes: Sequence[str]) -> str:
    return f"{_short(axis, axes)}{' ' if _WORD.fullmatch(value) else '='}{value}"


def _short(axis: str, axes: Sequence[str]) -> str:
    last = axis.rpartition(".")[2]
    return last if sum(one.rpartition(".")[2] == last for one in axes) == 1 else axis


def _joined(label: str, more: str) -> str:
    return f"{label}, {more}" if label and more else label or more


def _without(fmt: str, label: str) -> str:
    return "" if label == fmt else label.removeprefix(f"{fmt}, ")
