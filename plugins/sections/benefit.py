"""The primary contrast: what the treatment gains in each group, and whether it is the grid's doing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

import altgrad_core.report.charts as charts
from altgrad_core.analysis.words import (
    LEVEL,
    NONE,
    counted,
    group_names,
    group_noun,
    metric_label,
    score,
    sides,
    verdict_word,
)
from altgrad_core.interfaces.blocks import Block, Cell, Paragraph, Table, table
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.more_seeds import more_seeds
from altgrad_plugins.sections.shared import (
    BuiltIn,
    Row,
    digits,
    effects,
    finite,
    interval,
    over_seeds,
    plain,
    signed,
)

_ROLES = ("tested", "identical", "reference")
_MOST_COMPANIONS = 6
"""Other scores that the page has room for, in the order in which the task declares them."""


class Benefit(BuiltIn):
    """Forest plot and table of the gains, what they need the grid for, and the other scores."""

    title = "Benefit: what does the treatment gain in each format?"

    def build(self, found: Findings) -> Sequence[Block]:
        asked, rows = found.question, effects(found, *_ROLES)
        if asked is None:
            return [Paragraph("The suite declares no contrast, so there is nothing to compare.")]
        if not rows:
            return [Paragraph(f"No group of the suite has both values of {asked.axis}.")]
        blocks: list[Block] = [
            Paragraph(_answer(found, rows)),
            *forest(found, rows),
            _table(found, rows),
            *more_seeds(found),
        ]
        if beyond := [row for row in rows if row["role"] == "tested" and finite(row["excess"])]:
            blocks.append(_excess(found, beyond))
        return [*blocks, *_companions(found, rows)]


def forest(found: Findings, rows: Sequence[Row], name: str = "benefit") -> list[Block]:
    """The gains of the rows with their intervals and seeds; nothing where none is known."""
    known, asked = [row for row in rows if finite(row["gain"])], found.question
    if not known or asked is None:
        return []
    frame = pd.DataFrame(known)[["group", "gain", "low", "high"]].assign(
        note=[f"{score(row['gain'], signed=True)}  {verdict_word(row)}" for row in known],
        control=[row["role"] != "tested" for row in known],
    )
    pairs = found.pairs[found.pairs["group"].isin(frame["group"]) & (found.pairs["dropped"] == "")]
    seeds = pairs.rename(columns={"gain": "value"})[["group", "seed", "value"]]
    label = f"gain in {metric_label(found, asked.metric)}"
    drawn = "mean over seeds, and each seed as a dot"
    if frame["low"].notna().any():
        drawn = (
            f"mean over seeds with its {LEVEL} t interval (not adjusted), and each seed as a dot"
        )
    caption = (
        f"{label[0].upper()}{label[1:]}, {sides(asked)}: {over_seeds(found, drawn)}; positive is "
        "better. Grey: controls."
    )
    if asked.margin is not None:
        caption += f" Dashed: the margin of ±{score(asked.margin)}."
    chart = charts.forest(
        name,
        caption,
        frame.rename(columns={"gain": "centre"}),
        seeds,
        title=label,
        margin=asked.margin,
        floor=_floor(found),
    )
    return [chart]


def _floor(found: Findings) -> float | None:
    """The largest difference between runs that ought to be equal."""
    known = found.twins[found.twins["status"] != "undecided"]["difference"].abs()
    largest = float(known.max()) if len(known) else 0.0
    return largest or None


def _answer(found: Findings, rows: Sequence[Row]) -> str:
    """How many groups have which verdict, in one sentence."""
    of = {role: [row for row in rows if row["role"] == role] for role in _ROLES}
    verdicts: dict[str, list[Row]] = {}
    for row in of["tested"]:
        verdicts.setdefault(verdict_word(row), []).append(row)
    parts = [
        f"{word} in {len(some)} ({group_names(some, rows)})" for word, some in verdicts.items()
    ]
    text = f"Verdicts on {counted(len(of['tested']), group_noun(found))}: {'; '.join(parts)}."
    outside = {"the reference": of["reference"], "equal by construction": of["identical"]}
    told = [f"{group_names(some, rows)} ({word})" for word, some in outside.items() if some]
    return f"{text} Outside the family: {'; '.join(told)}." if told else text


def _table(found: Findings, rows: Sequence[Row]) -> Table:
    asked = found.question
    assert asked is not None
    label = metric_label(found, asked.metric)
    family = max((int(row["family"]) for row in rows if finite(row["family"])), default=0)
    return table(
        rows,
        [
            (group_noun(found).capitalize(), "group"),
            (asked.baseline, plain("baseline")),
            (asked.treatment, plain("treatment")),
            (
                "Gain",
                signed("gain"),
                f"{sides(asked)} in {label}, seed by seed; positive is better.",
            ),
            (f"{LEVEL} interval", interval()),
            ("Std", plain("gain_std"), "over seeds."),
            (
                "Sampling error",
                plain("sampling_std"),
                "standard deviation of the mean gain over resampled test examples.",
            ),
            ("Pairs", lambda r: str(r["n"]) + f" of {r['planned']}" * (r["n"] < r["planned"])),
            ("Improved", lambda r: f"{r['improved']:g} of {r['n']}" if r["n"] else NONE),
            ("p (t)", digits("p"), "paired t test."),
            (
                "p (Holm)",
                digits("p_holm"),
                f"adjusted over {counted(family, 'distinct group')}, which decides.",
            ),
            ("p (sign flips)", digits("p_sign_flip"), "exact, not adjusted."),
            (
                "p (TOST)",
                digits("p_tost_holm"),
                "that the effect lies within the margin, adjusted.",
            ),
            (
                "Seeds needed",
                lambda r: f"{r['seeds_needed']:g}" if finite(r["seeds_needed"]) else NONE,
                "to show the gain seen with 80 % power at the first hurdle of Holm.",
            ),
            ("Diverged", _diverged, "runs of the baseline and of the treatment."),
            ("Verdict", _verdict),
            ("Not judged", lambda r: r["refused"] or r["censored"] or NONE),
        ],
        words=("Diverged", "Verdict", "Not judged"),
    )


def _diverged(row: Mapping[str, Any]) -> Cell | str:
    left, right = row["diverged_baseline"], row["diverged_treatment"]
    return Cell(f"{left} and {right}", tone="bad") if left or right else NONE


def _verdict(row: Mapping[str, Any]) -> Cell:
    bad = row["verdict"] in ("harm", "censored", "refused")
    return Cell(verdict_word(row), tone="bad" if bad else "plain")


def _excess(found: Findings, rows: Sequence[Row]) -> Table:
    """Whether a gain is the grid's: what it has over that of the reference."""
    return table(
        rows,
        [
            (group_noun(found).capitalize(), "group"),
            ("Reference", "reference_group"),
            ("Gain", signed("gain")),
            ("Over the reference", signed("excess")),
            (f"{LEVEL} interval", interval("excess_")),
            ("p (t)", digits("excess_p")),
            ("p (Holm)", digits("excess_p_holm")),
            ("Needs the grid", "needs_grid"),
        ],
        "What a format gains over what the reference gains from the same treatment, seed by seed: "
        "a gain that the reference has as well does not need the grid.",
        words=("Reference", "Needs the grid"),
    )


def _companions(found: Findings, rows: Sequence[Row]) -> list[Block]:
    if found.companions.empty:
        return []
    gains = found.companions.pivot(index="group", columns="metric", values="gain")
    every = list(dict.fromkeys(found.companions["metric"]))
    metrics = every[:_MOST_COMPANIONS]
    known = gains.reindex([row["group"] for row in rows]).reset_index()
    labels = ((f"{metric_label(found, m)}{_split(m, metrics)}", signed(m)) for m in metrics)
    caption = "Gains under the other scores; positive is better. Described, not tested."
    if more := len(every) - len(metrics):
        caption += f" {counted(more, 'more score')}: companions.csv."
    return [table(known, [(group_noun(found).capitalize(), "group"), *labels], caption)]


def _split(metric: str, metrics: Sequence[str]) -> str:
    """The split, where a metric is there for more than one."""
    name = metric.rpartition("/")[2]
    alone = sum(one.rpartition("/")[2] == name for one in metrics) == 1
    return "" if alone else f" ({metric.split('/')[1]})"
