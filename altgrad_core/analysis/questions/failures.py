"""Failure modes: where each format fails (forward, backward, optimizer), when, and in which layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from altgrad_core.analysis.document import (
    Block,
    Cell,
    HeatMap,
    Paragraph,
    Section,
    Table,
    cells,
    columns,
)
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.numbers import NONE, counted, percent, spread
from altgrad_core.analysis.summary import column
from altgrad_core.analysis.tables import linked, number_table, status_cell
from altgrad_core.analysis.words import named

TITLE = "Failure modes: where does each format fail?"
STAGES = ("forward", "backward", "optimizer", "weights", "intervention", "other")
_OF_KIND = {
    "gradient_misaligned": "backward",
    "dead_layer": "forward",
    "stall": "optimizer",
    "rank_collapse": "weights",
    "code_collapse": "weights",
    "format_shift": "intervention",
    "format_chain_end": "intervention",
    "update_skipped": "intervention",
    "gradient_clipped": "intervention",
}
"""Kinds of event whose name does not end in a stage."""
_RATES = {
    "overflow/all/weight_overflow_rate": ("forward", "weights too large"),
    "overflow/all/weight_underflow_rate": ("forward", "weights rounded to 0"),
    "overflow/all/input_overflow_rate": ("forward", "inputs too large"),
    "overflow/all/input_underflow_rate": ("forward", "inputs rounded to 0"),
    "overflow/all/gradient_underflow_rate": ("backward", "gradients rounded to 0, if held so"),
    "overflow/all/output_gradient_overflow_rate": ("backward", "output gradients too large"),
    "overflow/all/output_gradient_underflow_rate": ("backward", "output gradients rounded to 0"),
    "overflow/all/update_lost_rate": ("optimizer", "updates below half a gap"),
}
"""Rates of the whole model -> their stage, and what they count."""
_NAMED_LAYERS = 3


@dataclass(frozen=True)
class Incident:
    """One event of one run; the divergence of a run is one, too."""

    run: str
    format: str
    stage: str
    kind: str
    layer: str
    step: int
    message: str


def section(found: Findings, folder: Path) -> Section:
    """Runs that did not end well, and events by format and stage."""
    seen = incidents(found)
    blocks: list[Block] = [Paragraph(_answer(found, seen)), *_runs(found, folder)]
    if seen:
        blocks.append(_table(found, seen))
        blocks.extend(_heat(found, seen))
    return Section(TITLE, [*blocks, *_rates(found)])


def stage_of(kind: str, layer: str = "") -> str:
    """The stage of a training step that an event belongs to.

    A run that diverged says what was first not finite: a parameter (the update made it so), a
    gradient, or the forward pass.
    """
    if kind == "diverged":
        if layer.startswith("gradient of"):
            return "backward"
        return "optimizer" if layer.startswith("parameter") else "forward"
    ending = kind.rpartition("_")[2]
    return ending if ending in STAGES[:3] else _OF_KIND.get(kind, "other")


def incidents(found: Findings) -> list[Incident]:
    """Every event of the planned runs, in the suite's order."""
    formats = dict(zip(found.results["id"], found.results["format"], strict=True))
    return [
        Incident(
            run=run.spec.id,
            format=str(formats[run.spec.id]),
            stage=stage_of(event.kind, event.layer),
            kind=event.kind,
            layer=event.layer,
            step=event.step,
            message=event.message,
        )
        for run in found.runs
        for event in run.history.events
    ]


def _answer(found: Findings, seen: list[Incident]) -> str:
    planned = found.planned
    diverged = planned[planned["status"] == "diverged"]
    failed = planned[~planned["status"].isin(["ok", "diverged", "pending", "skipped", "running"])]
    text = _ends(len(planned), len(found.done), len(failed))
    if len(diverged):
        by_format = diverged["format"].value_counts(sort=False)
        parts = named(f"{fmt}: {n}" for fmt, n in by_format.items())
        text += f" {counted(len(diverged), 'run')} diverged ({parts})."
    else:
        text += " None diverged."
    real = [one for one in seen if one.stage in STAGES[:4]]
    if not real:
        return f"{text} No monitor reported a failure in the forward pass, backward pass or update."
    first = min(real, key=lambda one: one.step)
    stages = dict.fromkeys(one.stage for one in sorted(real, key=lambda o: STAGES.index(o.stage)))
    told = "; ".join(
        f"{stage}: {named(dict.fromkeys(o.format for o in real if o.stage == stage))}"
        for stage in stages
    )
    return (
        f"{text} Events by stage – {told}. The first is {first.kind} in {first.format} at step "
        f"{first.step} ({first.layer})."
    )


def _ends(planned: int, done: int, failed: int) -> str:
    if planned == done:
        return f"All {counted(planned, 'planned run')} went to their end."
    text = f"{done} of {counted(planned, 'planned run')} went to their end"
    return f"{text}, {failed} failed." if failed else f"{text}."


def _runs(found: Findings, folder: Path) -> list[Block]:
    planned = found.planned
    wrong = planned[(planned["status"] != "ok") | (planned["message"] != "")]
    if wrong.empty:
        return []
    head = columns(
        *("Condition", "Seed", "Status", "Step", "What happened"), numbers=("Seed", "Step")
    )
    rows = tuple(
        (
            linked(row["condition"], row["directory"], folder),
            Cell(str(row["seed"])),
            status_cell(row["status"]),
            Cell(f"{row['step']} of {row['max_steps']}" if row["max_steps"] else NONE),
            Cell(row["message"] or NONE),
        )
        for _, row in wrong.iterrows()
    )
    return [Table(head, rows, "Runs that did not simply end well.")]


def _table(found: Findings, seen: list[Incident]) -> Table:
    """Events by format, stage and kind: in how many runs, in which layers, when first."""
    groups: dict[tuple[str, str, str], list[Incident]] = {}
    order = {fmt: place for place, fmt in enumerate(dict.fromkeys(found.planned["format"]))}
    for one in seen:
        groups.setdefault((one.format, one.stage, one.kind), []).append(one)
    ordered = sorted(groups, key=lambda key: (order[key[0]], STAGES.index(key[1])))
    rows = []
    for key in ordered:
        events = groups[key]
        first = min(events, key=lambda one: one.step)
        runs, layers = {e.run for e in events}, dict.fromkeys(e.layer for e in events)
        of = int((found.done["format"] == key[0]).sum())
        rows.append(
            cells(
                *key,
                f"{len(runs)} of {of}",
                named(layers, _NAMED_LAYERS),
                str(first.step),
                first.message,
            )
        )
    head = columns(
        *("Format", "Stage", "Event", "Runs", "Layers", "First at step", "Message of the first"),
        numbers=("Runs", "First at step"),
    )
    caption = (
        "What monitors reported, each once for a layer. Each run's own are in its metrics.jsonl."
    )
    return Table(head, tuple(rows), caption)


def _heat(found: Findings, seen: list[Incident]) -> list[Block]:
    formats = tuple(dict.fromkeys(map(str, found.planned["format"])))
    stages = tuple(s for s in STAGES if any(one.stage == s for one in seen))
    runs = {fmt: int((found.done["format"] == fmt).sum()) for fmt in formats}
    hit = {
        (fmt, stage): len({o.run for o in seen if (o.format, o.stage) == (fmt, stage)})
        for fmt in formats
        for stage in stages
    }
    share = {key: count / runs[key[0]] if runs[key[0]] else math.nan for key, count in hit.items()}
    return [
        HeatMap(
            name="failures",
            caption="Share of the runs of each format with an event, by the stage where it happened.",
            rows=formats,
            columns=stages,
            values=tuple(tuple(share[f, s] for s in stages) for f in formats),
            texts=tuple(tuple(f"{hit[f, s]} of {runs[f]}" for s in stages) for f in formats),
        )
    ]


def _rates(found: Findings) -> list[Block]:
    """What each format loses on average, event or not; nothing where no run measured it."""
    done = found.done
    known = {
        name: column(done, f"{name}@mean")
        for name in _RATES
        if column(done, f"{name}@mean").notna().any()
    }
    if not known:
        return []
    formats = tuple(dict.fromkeys(map(str, done["format"])))
    rows = tuple(
        cells(
            _RATES[name][0],
            _RATES[name][1],
            *(percent(spread(values[done["format"] == fmt].tolist()).mean) for fmt in formats),
        )
        for name, values in known.items()
    )
    caption = "Mean over steps, layers and runs, in % of the elements, for every run of the format."
    return [Table(number_table(("Stage", "Rate (%)"), formats), rows, caption)]
