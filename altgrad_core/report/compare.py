"""``altgrad-bench compare A B``: what B does otherwise than A, condition by condition.

For a change of hardware, of a version or of a setting: the same conditions run twice. Differences are
B − A, paired by seed, since runs with the same seed share initial weights, data order and dropout. Runs
with the same id have the same settings, data and plugin versions; where they also end the same to the
last digit they are *identical*, and where they do not, what differs is the machine, torch, or the code
of a version that was not counted up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from altgrad_core._files import write_text
from altgrad_core.analysis.design import Group
from altgrad_core.analysis.frames import SPEED, score_columns
from altgrad_core.analysis.pairs import pairs_table
from altgrad_core.analysis.statistics import MIN_SEEDS, holm, summarise
from altgrad_core.analysis.words import (
    LEVEL,
    counted,
    interval_text,
    named,
    percent,
    score,
    significant,
)
from altgrad_core.errors import UserError
from altgrad_core.interfaces.blocks import Bullets, Paragraph, Shown, Table, table
from altgrad_core.interfaces.metric import Metric, declared
from altgrad_core.report.build import write_document
from altgrad_core.report.document import Document, Part
from altgrad_core.report.terminal import TerminalTable
from altgrad_core.results.collect import results_table
from altgrad_core.results.differences import (
    in_words,
    outcome_differences,
    setting_differences,
    some,
)
from altgrad_core.results.run_directory import FINISHED
from altgrad_core.results.sources import Source, read_sources
from altgrad_core.results.stored import StoredSuite

_SHOWN = 5
"""Cases that a sentence spells out; the others are counted."""
_RULE = (
    "Differences are B − A, paired by seed. The interval is that of the paired t test, one condition by "
    "itself. p, Holm: its p, adjusted over the conditions of its table, and not over the tables. p, sign "
    f"flip: the exact test, not adjusted. Below {MIN_SEEDS} pairs nothing is tested."
)


@dataclass(frozen=True)
class SetComparison:
    """Everything that two sets of results say against each other.

    Attributes:
        names: What A and B are called.
        changes: A row per metric and condition: ``metric, condition, pairs, same_id, identical, a, b``
            (means), ``difference, std, low, high, p, p_holm, p_sign_flip, better`` (pairs in which B is).
        notes: What is to be known of the numbers, and of how each set was read.
        labels: What a reader calls each metric; the primary one is first.
    """

    names: tuple[str, str]
    changes: pd.DataFrame
    notes: tuple[str, ...]
    labels: dict[str, str]


def compare_results(a: Source | Sequence[Source], b: Source | Sequence[Source]) -> SetComparison:
    """Read two sets of results (folders, archives, W&B projects) and compare them.

    Conditions are the same if their labels are; where either set has several suites, those of the same
    suite. Runs that a suite does not plan, and those that served the choice of a learning rate, are left
    out.

    Raises ``UserError`` where there are no results, or none in common.
    """
    suites = read_sources(a), read_sources(b)
    called = _name(a), _name(b)
    tables = [_finished(side, any(len(s) > 1 for s in suites)) for side in suites]
    runs = pd.concat(tables, ignore_index=True)
    halves = runs.iloc[: len(tables[0])], runs.iloc[len(tables[0]) :]
    pairs = _pairs(suites, tables)
    if pairs.empty:
        sides = [named(dict.fromkeys(t["condition"]), _SHOWN) or "no result" for t in tables]
        raise UserError(
            f"{called[0]} and {called[1]} have no condition and seed in common that has a result in "
            f"both: {sides[0]} against {sides[1]}."
        )
    groups = [_group(condition, *halves) for condition in dict.fromkeys(pairs["condition"])]
    metrics = tuple(dict.fromkeys(m for side in suites for suite in side for m in suite.metrics))
    known = {name: declared(name, metrics) for name in (*score_columns(metrics), SPEED)}
    measured = {name: metric for name, metric in known.items() if metric is not None}
    rows = [row for n, m in measured.items() for row in _changes(groups, runs, n, m, pairs)]
    notes = [note for side in suites for suite in side for note in suite.notes]
    labels = {name: metric.label for name, metric in measured.items()}
    said = (*_identity(pairs), *_circumstances(pairs, tables, called), *notes)
    return SetComparison(called, pd.DataFrame(rows), said, labels)


def _pairs(suites: Sequence[Sequence[StoredSuite]], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """A row per condition and seed that both sets have: what tells its two runs apart.

    ``same``: whether they are one run, by its id; ``ended``: what differs in how they did, ``apart``:
    in their settings; ``identical``: whether they are one run that ended the same.
    """
    stored = [{run.spec.id: run for suite in side for run in suite.runs} for side in suites]
    columns = ["condition", "seed", "id", "status"]
    left, right = (table[columns].drop_duplicates(columns[:2], keep="last") for table in tables)
    found = left.merge(right, on=columns[:2], suffixes=("_a", "_b"))
    runs = [(stored[0][a], stored[1][b]) for a, b in zip(found["id_a"], found["id_b"], strict=True)]
    ended = pd.Series([outcome_differences(a, b) for a, b in runs], found.index, dtype=object)
    apart = pd.Series([setting_differences(a.spec, b.spec) for a, b in runs], found.index)
    same = found["id_a"] == found["id_b"]
    return found.assign(same=same, ended=ended, apart=apart, identical=same & ~ended.map(bool))


def _name(given: Source | Sequence[Source]) -> str:
    return str(given) if isinstance(given, str | Path) else ", ".join(map(str, given))


def _finished(suites: Sequence[StoredSuite], several: bool) -> pd.DataFrame:
    """The planned runs with a result; ``condition`` with its suite where there may be several."""
    table = results_table(suites)
    table = table[table["planned"] & table["status"].isin(list(FINISHED))]
    label = table["suite"] + ": " + table["condition"] if several else table["condition"]
    return table.assign(condition=label)


def _group(condition: str, left: pd.DataFrame, right: pd.DataFrame) -> Group:
    """A's and B's runs of a condition, as the two sides of a comparison."""
    sides = (side[side["condition"] == condition] for side in (left, right))
    return Group(condition, "", "", "", (), (), "", "", (), *sides)


def _changes(
    groups: Sequence[Group], runs: pd.DataFrame, name: str, metric: Metric, pairs: pd.DataFrame
) -> list[dict[str, Any]]:
    """The rows of one metric; none where no pair has it."""
    every = pairs_table(groups, runs, name, metric)
    every = every[every["dropped"] == ""]
    used = {group.label: every[every["group"] == group.label] for group in groups}
    found = {label: summarise(mine["delta"].tolist()) for label, mine in used.items()}
    adjusted = holm({label: one.p for label, one in found.items()})
    same, identical = (pairs.groupby("condition")[one].sum() for one in ("same", "identical"))
    rows = [
        {
            **{"metric": name, "condition": label, "pairs": one.n},
            "same_id": same[label],
            "identical": identical[label],
            **{"a": used[label]["baseline"].mean(), "b": used[label]["treatment"].mean()},
            **{"difference": one.mean, "std": one.std, "low": one.low, "high": one.high},
            **{"p": one.p, "p_holm": adjusted[label], "p_sign_flip": one.p_sign_flip},
            "better": int((used[label]["gain"] > 0).sum()),
        }
        for label, one in found.items()
    ]
    return rows if any(one.n for one in found.values()) else []


def _identity(pairs: pd.DataFrame) -> Iterator[str]:
    """How many pairs are one run twice, how these ended, and what differs between the others."""
    same, others = pairs[pairs["same"]], pairs[~pairs["same"]]
    changed = same[~same["identical"]]
    total = counted(len(pairs), "pair")
    if same.empty:
        yield f"{total} of runs; no run of one set has the id of a run of the other."
    else:
        yield (
            f"{total} of runs, {len(same)} with the same id on both sides: {len(same) - len(changed)} "
            "of these ended the same (status, step and every digit of every final metric), "
            f"{len(changed)} did not."
        )
    if len(changed):
        ends = [
            f"{one['condition']} seed {one['seed']} ({in_words(dict([*one['ended'].items()][:1]))})"
            for one in changed.to_dict("records")
        ]
        yield f"Same id, another end: {some(ends, _SHOWN)}."
    if others.empty:
        return
    counts = Counter((key, *values) for one in others["apart"] for key, values in one.items())
    cases = [f"{k} ({a} and {b}, in {counted(n, 'pair')})" for (k, a, b), n in counts.most_common()]
    if unexplained := sum(not one for one in others["apart"]):
        cases.append(f"other settings of spec.yaml (in {counted(unexplained, 'pair')})")
    runs = counted(len(others), "pair")
    yield f"{runs} of runs with different ids: what differs there is {some(cases, _SHOWN)}."


def _circumstances(
    pairs: pd.DataFrame, tables: Sequence[pd.DataFrame], names: tuple[str, str]
) -> Iterator[str]:
    """Divergence, devices, and what one set alone has."""
    lost = [int((pairs[f"status_{side}"] == "diverged").sum()) for side in "ab"]
    if any(lost):
        yield (
            f"Diverged runs: {lost[0]} of {names[0]}, {lost[1]} of {names[1]}. They count as the worst "
            "score; where a metric has none, their pairs are left out."
        )
    a, b = (
        named(dict.fromkeys(t["device"][t["device"] != ""])) or "an unknown device" for t in tables
    )
    where = f"{a} both times" if a == b else f"{a} and on {b}"
    yield f"Samples/s were measured on {where}. Runs that share a device slow each other."
    keys = [dict.fromkeys(zip(t["condition"], t["seed"], strict=True)) for t in tables]
    for mine, theirs, name in ((keys[0], keys[1], names[0]), (keys[1], keys[0], names[1])):
        if alone := [f"{c} seed {seed}" for c, seed in mine if (c, seed) not in theirs]:
            yield f"In {name} alone: {some(alone, _SHOWN)}."


def comparison_document(found: SetComparison) -> Document:
    """The whole comparison: what is to be known, and a table per metric."""
    opening = (
        Paragraph(f"A is {found.names[0]}; B is {found.names[1]}.", lead=True),
        Bullets(found.notes),
        Paragraph(_RULE),
    )
    parts = tuple(
        Part(label, (_table(rows),))
        for name, label in found.labels.items()
        if len(rows := found.changes[found.changes["metric"] == name])
    )
    return Document(f"{found.names[1]} against {found.names[0]}", opening, parts)


def _table(changes: pd.DataFrame) -> Table:
    """The rows of one metric; a difference in percent only of what cannot be 0."""
    speed = (changes["metric"] == SPEED).any()
    shown: list[tuple[str, Shown]] = [
        ("Condition", "condition"),
        ("Pairs", "pairs"),
        ("Identical", "identical"),
        ("A", lambda row: score(row["a"])),
        ("B", lambda row: score(row["b"])),
        ("B − A", lambda row: score(row["difference"], signed=True)),
        ("%", lambda row: percent(row["difference"] / row["a"]) if speed else ""),
        (f"{LEVEL} interval", lambda row: interval_text(row["low"], row["high"])),
        ("p, Holm", lambda row: significant(row["p_holm"])),
        ("p, t", lambda row: significant(row["p"])),
        ("p, sign flip", lambda row: significant(row["p_sign_flip"])),
        ("B better", lambda row: f"{row['better']} of {row['pairs']}"),
    ]
    words = (f"{LEVEL} interval", "B better")
    return table(changes, shown, words=words)


def comparison_tables(found: SetComparison) -> list[TerminalTable]:
    """For the terminal: the primary metric, and the speed."""
    shown = [found.labels[name] for name in (next(iter(found.labels)), SPEED)]
    parts = [part for part in comparison_document(found).parts if part.title in shown]
    return [
        TerminalTable(replace(block, caption=f"{part.title}: {found.names[1]} − {found.names[0]}"))
        for part in parts
        for block in part.blocks
        if isinstance(block, Table)
    ]


def write_comparison(found: SetComparison, folder: Path) -> tuple[Path, ...]:
    """Write ``comparison.md``, ``.html`` and ``.csv`` (not rounded) into ``folder``; their paths.

    Raises ``UserError`` if the disk refuses them.
    """
    try:
        write_document(comparison_document(found), folder, "comparison")
        write_text(folder / "comparison.csv", found.changes.to_csv(index=False))
    except OSError as error:
        reason = f"The comparison cannot be written to {folder}: {error.strerror}."
        raise UserError(reason) from error
    return tuple(folder / f"comparison.{kind}" for kind in ("md", "html", "csv"))
