"""Failure modes: where each format fails (forward, backward, optimizer), when, and in which layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from altgrad_core.analysis.words import NONE, counted, named, percent
from altgrad_core.interfaces.blocks import Block, Cell, Paragraph, Shown, table
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.shared import (
    DONE,
    SAMPLE,
    BuiltIn,
    column,
    digits,
    measured,
    planned,
    to_run,
)

STAGES = ("forward", "backward", "optimizer", "weights", "intervention", "other")
_FAILURES = STAGES[:4]
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


class Failures(BuiltIn):
    """Runs that did not end well, and events by format and stage."""

    title = "Failure modes: where does each format fail?"

    def build(self, found: Findings) -> Sequence[Block]:
        runs = planned(found)
        seen = found.events[found.events["id"].isin(runs["id"])]
        seen = seen[seen["kind"] != SAMPLE]
        seen = seen.assign(
            stage=[stage_of(k, x) for k, x in zip(seen["kind"], seen["layer"], strict=True)]
        )
        blocks: list[Block] = [Paragraph(_answer(runs, seen)), *_wrong(runs)]
        return [*blocks, *_events(runs, seen), *_rates(found)]


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


def _answer(runs: pd.DataFrame, seen: pd.DataFrame) -> str:
    status = runs["status"]
    done, diverged = int(status.isin(DONE).sum()), runs.loc[status == "diverged", "format"]
    failed = int((~status.isin([*DONE, "pending", "skipped", "running"])).sum())
    text = f"{done} of {counted(len(runs), 'planned run')} went to their end"
    text += f", {failed} failed." if failed else "."
    if len(diverged):
        parts = named(f"{fmt}: {n}" for fmt, n in diverged.value_counts(sort=False).items())
        text += f" {counted(len(diverged), 'run')} diverged ({parts})."
    elif done:
        text += " None of these diverged."
    real = seen[seen["stage"].isin(_FAILURES)]
    if real.empty:
        return f"{text} No monitor reported a failure in the forward pass, backward pass or update."
    formats = {stage: real.loc[real["stage"] == stage, "format"] for stage in _FAILURES}
    told = "; ".join(
        f"{stage}: {named(dict.fromkeys(some))}" for stage, some in formats.items() if len(some)
    )
    first = real.sort_values("step", kind="stable").iloc[0]
    return (
        f"{text} Events by stage – {told}. The first is {first['kind']} in {first['format']} at step "
        f"{first['step']} ({first['layer']})."
    )


def _wrong(runs: pd.DataFrame) -> list[Block]:
    wrong = runs[(runs["status"] != "ok") | (runs["message"] != "")]
    if wrong.empty:
        return []
    shown: list[tuple[str, Shown]] = [
        ("Condition", lambda r: to_run(r["condition"], r["directory"])),
        ("Seed", "seed"),
        ("Status", lambda r: Cell(r["status"], tone="plain" if r["status"] == "ok" else "bad")),
        ("Step", lambda r: f"{r['step']} of {r['max_steps']}" if r["max_steps"] else NONE),
        ("What happened", lambda r: r["message"] or NONE),
    ]
    caption = "Runs that did not simply end well."
    return [table(wrong, shown, caption, words=("Status", "What happened"))]


def _events(runs: pd.DataFrame, seen: pd.DataFrame) -> list[Block]:
    """Events by format, stage and kind: in how many runs, in which layers, when first."""
    if seen.empty:
        return []
    orders = {"format": list(dict.fromkeys(runs["format"])), "stage": list(STAGES)}
    done = runs[runs["status"].isin(DONE)]["format"].value_counts()
    by_kind = seen.sort_values("step", kind="stable").groupby(["format", "stage", "kind"])
    rows = by_kind.agg(
        runs=("id", "nunique"),
        layers=("layer", lambda layers: list(dict.fromkeys(layers))),
        step=("step", "first"),
        message=("message", "first"),
    ).reset_index()
    rows = rows.sort_values(
        ["format", "stage"], key=lambda values: values.map(orders[str(values.name)].index)
    )
    shown: list[tuple[str, Shown]] = [
        ("Format", "format"),
        ("Stage", "stage"),
        ("Event", "kind"),
        ("Runs", lambda row: f"{row['runs']} of {int(done.get(row['format'], 0))}"),
        ("Layers", lambda row: named(row["layers"], _NAMED_LAYERS)),
        ("First at step", "step"),
        ("Message of the first", "message"),
    ]
    caption = (
        "What monitors reported, each once for a layer; each run's own are in its metrics.jsonl."
    )
    words = ("Stage", "Event", "Layers", "Message of the first")
    return [table(rows, shown, caption, words=words)]


def _rates(found: Findings) -> list[Block]:
    """What each format loses on average, event or not; nothing where no run measured it."""
    known = [name for name in _RATES if measured(found, f"{name}@mean")]
    if not known:
        return []
    runs = planned(found)
    values = pd.DataFrame({name: column(runs, f"{name}@mean") for name in known})
    means = values.replace([math.inf, -math.inf], math.nan).groupby(runs["format"], sort=False)
    rows = means.mean().T.reset_index(names="rate")
    shown: list[tuple[str, Shown]] = [
        ("Stage", lambda row: _RATES[row["rate"]][0]),
        ("Rate (%)", lambda row: _RATES[row["rate"]][1]),
        *((fmt, digits(fmt, percent)) for fmt in dict.fromkeys(runs["format"])),
    ]
    caption = "Mean over steps, layers and runs, in % of the elements, for every run of the format."
    return [table(rows, shown, caption, words=("Rate (%)",))]
