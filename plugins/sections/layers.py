"""Which format suits which type of layer, judged by what monitors saw inside of trained models.

A diagnostic, not an experiment: all quantised layers of these runs had one format. A format that
loses least in a type of layer is a candidate for a mixed model; whether that model is better has to
be trained. One side is used throughout, the contrast's baseline: both for what is measured and for
which formats are candidates.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

import altgrad_core.report.charts as charts
from altgrad_core.analysis.words import NONE, counted, listed, metric_label, score, significant
from altgrad_core.interfaces.blocks import Block, Paragraph, Table, table
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.shared import BuiltIn, by_condition, effects, over_seeds, primary

TYPES: tuple[tuple[str, str], ...] = (
    ("attention, query", r"(^|[._])(q|query|q_lin|q_proj|wq)([._]|$)"),
    ("attention, key", r"(^|[._])(k|key|k_lin|k_proj|wk)([._]|$)"),
    ("attention, value", r"(^|[._])(v|value|v_lin|v_proj|wv)([._]|$)"),
    ("attention, in (fused)", r"(in_proj|qkv|c_attn|query_key_value)"),
    (
        "attention, output",
        r"(out_lin|out_proj|o_proj|attention\.output|attn\.(c_)?proj|(^|[._])wo([._]|$))",
    ),
    ("feed-forward, in", r"(lin1|linear1|intermediate|fc1|up_proj|gate_proj|c_fc|dense_h_to_4h)"),
    ("feed-forward, out", r"(lin2|linear2|output\.dense|fc2|down_proj|dense_4h_to_h|mlp\.c_proj)"),
    ("embedding", r"(embed|wte|wpe)"),
    ("head", r"(classifier|lm_head|(^|[._])head([._]|$)|score)"),
)
"""Types of layer, and what the name of such a weight contains; the first that fits counts."""
OTHER = "other"


@dataclass(frozen=True)
class Criterion:
    """A number per layer by which formats are ranked; ``better``: 1, more is better, −1, less is."""

    metric: str
    title: str
    better: int


CRITERIA = (
    Criterion("gradient_error/relative_error", "relative error of the gradient", -1),
    Criterion("updates/snr_db", "SNR of the update (dB)", 1),
    Criterion("flips/stall_ratio", "stall ratio", -1),
)
"""In the order of preference: the first that was measured is drawn."""


class Layers(BuiltIn):
    """Formats ranked within each type of layer."""

    title = "Layers: which format suits which type of layer?"

    def build(self, found: Findings) -> Sequence[Block]:
        measured = {c: means for c in CRITERIA if not (means := layer_means(found, c)).empty}
        monitors = [c.metric.partition("/")[0] for c in CRITERIA if c not in measured]
        if not measured:
            text = f"No run has recorded numbers by layer; enable one of {_named(monitors)}."
            return [Paragraph(text)]
        formats, note = candidates(found)
        first = next(iter(measured))
        blocks: list[Block] = [
            Paragraph(_answer(first, measured[first], formats, note)),
            _table(found, measured, formats),
            _heat(first, measured[first]),
        ]
        if monitors:
            blocks.append(Paragraph(f"More to judge by: {_named(monitors)}."))
        return blocks


def _named(monitors: Sequence[str]) -> str:
    return f"the monitor{'s' * (len(monitors) > 1)} {listed(monitors)}"


def layer_type(layer: str) -> str:
    """The type of a layer by its name."""
    return next((name for name, pattern in TYPES if re.search(pattern, layer)), OTHER)


def layer_means(found: Findings, criterion: Criterion) -> pd.DataFrame:
    """Means by type of layer (rows) and format (columns), of the baseline's runs.

    The same settings and seeds enter for every format, so that the format alone differs.
    """
    table = found.layers[found.layers["metric"] == criterion.metric]
    if found.question is not None:
        table = table[table["side"] == "baseline"]
    table = table[table["mean"].map(math.isfinite)]
    if table.empty:
        return pd.DataFrame()
    setting = found.conditions.set_index("condition")["setting"]
    seed = found.runs.drop_duplicates("id").set_index("id")["seed"]
    place = table["condition"].map(setting) + ", seed " + table["id"].map(seed).astype(str)
    table = table.assign(kind=table["layer"].map(layer_type), place=place)
    places = [set(some["place"]) for _, some in table.groupby("format", sort=False)]
    table = table[table["place"].isin(set.intersection(*places))]
    means = table.pivot_table(index="kind", columns="format", values="mean", sort=False)
    return means.reindex([kind for kind in (*dict(TYPES), OTHER) if kind in means.index])


def candidates(found: Findings) -> tuple[list[str], str]:
    """The formats that are ranked: no references, and none that scores worse by the margin."""
    asked, (name, metric) = found.question, primary(found)
    references = {row["format"] for row in effects(found, "reference")}
    table = found.conditions
    if asked is not None:
        table = table[table["side"] == "baseline"]
    table = table[~table["format"].isin(references)]
    formats = list(dict.fromkeys(map(str, table["format"])))
    if asked is None or metric is None or asked.margin is None or not formats:
        return formats, "No margin was declared, so formats are ranked whatever their score."
    means = by_condition(found, name)
    best = {
        fmt: max(
            metric.sign * means[c].mean for c in table.loc[table["format"] == fmt, "condition"]
        )
        for fmt in formats
    }
    limit = max(best.values()) - asked.margin
    kept = [fmt for fmt in formats if best[fmt] >= limit]
    left = [fmt for fmt in formats if fmt not in kept]
    text = (
        f"Ranked are formats whose {metric_label(found, name)} with {asked.baseline} is within "
        f"{score(asked.margin)} of the best"
    )
    return kept, f"{text}; left out: {listed(left)}." if left else f"{text}, which all are."


def ranked(
    criterion: Criterion, means: pd.DataFrame, formats: Sequence[str], kind: str
) -> list[str]:
    """The formats from best to worst in one type of layer."""
    known = {fmt: means[fmt][kind] for fmt in formats if fmt in means}
    known = {fmt: value for fmt, value in known.items() if math.isfinite(value)}
    return sorted(known, key=lambda fmt: -criterion.better * known[fmt])


def _answer(first: Criterion, means: pd.DataFrame, formats: Sequence[str], note: str) -> str:
    by_format: dict[str, list[str]] = {}
    for kind in means.index:
        for fmt in ranked(first, means, formats, kind)[:1]:
            by_format.setdefault(fmt, []).append(str(kind))
    head_ = "This is a diagnostic of models in one format, not a comparison of trained mixtures. "
    if not by_format:
        return f"{head_}No format is left to rank. {note}"
    if len(formats) == 1:
        return f"{head_}Only {formats[0]} is left, so there is nothing to rank. {note}"
    if len(by_format) == 1:
        text = f"By {first.title}, {next(iter(by_format))} is best in every type of layer"
    else:
        parts = [f"{fmt} in {listed(kinds)}" for fmt, kinds in by_format.items()]
        text = f"By {first.title}, the best are {'; '.join(parts)}"
    return f"{head_}{text}, of {counted(len(formats), 'format')}. {note}"


def _table(
    found: Findings, measured: dict[Criterion, pd.DataFrame], formats: Sequence[str]
) -> Table:
    kinds = dict.fromkeys(kind for means in measured.values() for kind in means.index)

    def best(criterion: Criterion, kind: str) -> str:
        means = measured[criterion]
        order = ranked(criterion, means, formats, kind)[:3] if kind in means.index else []
        return ", ".join(f"{f} ({significant(means[f][kind])})" for f in order) or NONE

    titles = {f"By {one.title}": one for one in measured}
    rows = ({"kind": kind} | {t: best(one, kind) for t, one in titles.items()} for kind in kinds)
    over = over_seeds(found, "layers, steps, seeds and settings", "layers, steps and settings")
    caption = (
        f"The three best formats, best first, with the mean over {over} of the baseline's runs. A stall "
        "does no harm where a master weight collects the update."
    )
    shown = [("Type of layer", "kind"), *((title, title) for title in titles)]
    return table(rows, shown, caption, words=tuple(titles))


def _heat(criterion: Criterion, means: pd.DataFrame) -> Block:
    long = means.reset_index().melt(id_vars="kind", var_name="column", value_name="value")
    frame = long.rename(columns={"kind": "row"}).assign(text=long["value"].map(significant))
    direction = "more" if criterion.better > 0 else "less"
    caption = (
        f"Mean {criterion.title} by type of layer and format; {direction} is better. References are "
        "shown and not ranked."
    )
    return charts.heat("layers", caption, frame)
