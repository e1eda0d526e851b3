"""Which format suits which type of layer, judged by what monitors saw inside of trained models.

A diagnostic, not an experiment: all quantised layers of these runs had one format. A format that
loses least in a type of layer is a candidate for a mixed model; whether that model is better has to
be trained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from altgrad_core.analysis.document import Block, HeatMap, Paragraph, Section, Table, cells
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.groups import settings_of, side_of
from altgrad_core.analysis.numbers import NONE, counted, listed, score, significant, spread
from altgrad_core.analysis.questions.performance import score_table
from altgrad_core.analysis.summary import REFERENCES
from altgrad_core.analysis.tables import number_table
from altgrad_core.analysis.words import metric_name
from altgrad_core.results.stored import StoredRun

TITLE = "Layers: which format suits which type of layer?"

TYPES: tuple[tuple[str, str], ...] = (
    ("attention, query", r"(^|[._])(q|query|q_lin|q_proj|wq)([._]|$)"),
    ("attention, key", r"(^|[._])(k|key|k_lin|k_proj|wk)([._]|$)"),
    ("attention, value", r"(^|[._])(v|value|v_lin|v_proj|wv)([._]|$)"),
    ("attention, in (fused)", r"(in_proj|qkv|c_attn|query_key_value)"),
    (
        "attention, output",
        r"(out_lin|out_proj|o_proj|attention\.output|attn\.proj|(^|[._])wo([._]|$))",
    ),
    ("feed-forward, in", r"(lin1|linear1|intermediate|fc1|up_proj|gate_proj|c_fc|dense_h_to_4h)"),
    ("feed-forward, out", r"(lin2|linear2|output\.dense|fc2|down_proj|dense_4h_to_h)"),
    ("classifier", r"(classifier|(^|[._])head([._]|$)|score)"),
)
"""Types of layer, and what the name of such a weight contains; the first that fits counts."""
OTHER = "other"


@dataclass(frozen=True)
class Criterion:
    """A number per layer by which formats are ranked."""

    metric: str
    title: str
    better: int
    """1: more is better, −1: less is."""

    @property
    def monitor(self) -> str:
        """The monitor that measures it: its family."""
        return self.metric.partition("/")[0]


CRITERIA = (
    Criterion("gradient_error/{}/relative_error", "relative error of the gradient", -1),
    Criterion("updates/{}/snr_db", "SNR of the update (dB)", 1),
    Criterion("flips/{}/stall_ratio", "stall ratio", -1),
)
"""In the order of preference: the first that was measured is drawn."""

Means = dict[tuple[str, str], float]
"""(format, type of layer) -> mean."""


def section(found: Findings, folder: Path) -> Section:
    """Formats ranked within each type of layer."""
    measured = {c: means for c in CRITERIA if (means := layer_means(found, c))}
    if not measured:
        return Section(TITLE, [Paragraph(_missing())])
    first = next(iter(measured))
    formats, note = candidates(found)
    blocks: list[Block] = [
        Paragraph(_answer(first, measured[first], formats, note)),
        _table(measured, formats),
        _heat(first, measured[first]),
    ]
    unmeasured = [c.monitor for c in CRITERIA if c not in measured]
    if unmeasured:
        more = f"More to judge by comes from the {_monitors(unmeasured)}."
        blocks.append(Paragraph(more))
    return Section(TITLE, blocks)


def layer_type(layer: str) -> str:
    """The type of a layer by its name."""
    return next((name for name, pattern in TYPES if re.search(pattern, layer)), OTHER)


def layer_means(found: Findings, criterion: Criterion) -> Means:
    """Means over layers, steps and runs; the same settings and seeds enter for every format.

    Only runs of the contrast's baseline are looked at: the format alone differs between them.
    """
    head, tail = criterion.metric.split("{}")
    settings = settings_of(found.results)
    labels = dict(zip(found.results["id"], found.results["format"], strict=True))
    by_format: dict[str, dict[tuple[str, int], dict[str, float]]] = {}
    for run in _baseline_runs(found):
        values = _by_type(run, head, tail)
        if values:
            place = (settings[run.spec.condition], run.spec.seed)
            by_format.setdefault(str(labels[run.spec.id]), {})[place] = values
    if not by_format:
        return {}
    common = set.intersection(*(set(places) for places in by_format.values()))
    types = dict.fromkeys(t for places in by_format.values() for v in places.values() for t in v)
    means = {
        (fmt, kind): spread(places[p][kind] for p in sorted(common) if kind in places[p]).mean
        for fmt, places in by_format.items()
        for kind in types
    }
    return {key: value for key, value in means.items() if math.isfinite(value)}


def candidates(found: Findings) -> tuple[list[str], str]:
    """The formats that are ranked: no references, and none that scores worse by the margin."""
    table = score_table(found)
    table = table[~table["format"].isin(list(REFERENCES))].dropna(subset=["mean"])
    formats = list(dict.fromkeys(map(str, table["format"])))
    if found.margin is None or not formats:
        return formats, "No margin was declared, so formats are ranked whatever their score."
    sign = found.declared.sign
    best = {fmt: max(sign * table[table["format"] == fmt]["mean"]) for fmt in formats}
    limit = max(best.values()) - found.margin
    kept = [fmt for fmt in formats if best[fmt] >= limit]
    left = [fmt for fmt in formats if fmt not in kept]
    text = f"Ranked are formats whose best mean {metric_name(found.metric)} is within "
    text += f"{score(found.margin)} of the best"
    return kept, f"{text}; left out: {listed(left)}." if left else f"{text}, which all are."


def ranked(
    criterion: Criterion, means: Mapping[tuple[str, str], float], formats: Iterable[str], kind: str
) -> list[str]:
    """The formats from best to worst in one type of layer."""
    known = [fmt for fmt in formats if (fmt, kind) in means]
    return sorted(known, key=lambda fmt: -criterion.better * means[fmt, kind])


def _baseline_runs(found: Findings) -> list[StoredRun]:
    done = found.done
    contrast = found.contrast
    if contrast is not None and contrast.axis in done:
        baseline = side_of(done, contrast, contrast.baseline)
        done = baseline if len(baseline) else done
    known = set(done["id"])
    return [run for run in found.runs if run.spec.id in known]


def _by_type(run: StoredRun, head: str, tail: str) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for name, series in run.history.series.items():
        layer = name.removeprefix(head).removesuffix(tail)
        if name == f"{head}{layer}{tail}" and layer != "all":
            mean = spread(v for v in series.values() if math.isfinite(v)).mean
            values.setdefault(layer_type(layer), []).append(mean)
    means = {kind: spread(found).mean for kind, found in values.items()}
    return {kind: value for kind, value in means.items() if not math.isnan(value)}


def _missing() -> str:
    return (
        "No run has recorded numbers by layer to judge by. Enable one of the "
        f"{_monitors(c.monitor for c in CRITERIA)}, without restricting its layers to none."
    )


def _monitors(names: Iterable[str]) -> str:
    known = list(names)
    return f"monitor{'' if len(known) == 1 else 's'} {listed(known)}"


def _types(means: Mapping[tuple[str, str], float]) -> list[str]:
    order = [name for name, _ in TYPES] + [OTHER]
    return sorted({kind for _, kind in means}, key=order.index)


def _answer(first: Criterion, means: Means, formats: list[str], note: str) -> str:
    best = {kind: ranked(first, means, formats, kind)[:1] for kind in _types(means)}
    winners = {kind: names[0] for kind, names in best.items() if names}
    head = "This is a diagnostic of models in one format, not a comparison of trained mixtures. "
    if not winners:
        return f"{head}No format is left to rank. {note}"
    by_format: dict[str, list[str]] = {}
    for kind, fmt in winners.items():
        by_format.setdefault(fmt, []).append(kind)
    if len(by_format) == 1:
        text = f"By {first.title}, {next(iter(by_format))} is best in every type of layer"
    else:
        parts = [f"{fmt} in {listed(kinds)}" for fmt, kinds in by_format.items()]
        text = f"By {first.title}, the best are {'; '.join(parts)}"
    return f"{head}{text}, of {counted(len(formats), 'format')}. {note}"


def _table(measured: Mapping[Criterion, Means], formats: list[str]) -> Table:
    kinds = list(dict.fromkeys(kind for means in measured.values() for kind in _types(means)))
    rows = []
    for kind in kinds:
        texts = []
        for criterion, means in measured.items():
            order = ranked(criterion, means, formats, kind)[:3]
            shown = [f"{fmt} ({significant(means[fmt, kind])})" for fmt in order]
            texts.append(", ".join(shown) or NONE)
        rows.append(cells(kind, *texts))
    titles = tuple(f"By {criterion.title}" for criterion in measured)
    caption = (
        "The three best formats, best first, with the mean over layers, steps, seeds and settings of the "
        "baseline optimizer. A stall does no harm where a master weight collects the update."
    )
    return Table(number_table(("Type of layer", *titles), ()), tuple(rows), caption)


def _heat(criterion: Criterion, means: Means) -> HeatMap:
    formats = tuple(dict.fromkeys(fmt for fmt, _ in means))
    kinds = tuple(_types(means))
    values = tuple(tuple(means.get((fmt, kind), math.nan) for fmt in formats) for kind in kinds)
    direction = "more" if criterion.better > 0 else "less"
    return HeatMap(
        name="layers",
        caption=f"Mean {criterion.title} by type of layer and format; {direction} is better. References "
        "are shown and not ranked.",
        rows=kinds,
        columns=formats,
        values=values,
        texts=tuple(tuple(map(significant, row)) for row in values),
    )
