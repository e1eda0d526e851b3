"""What monitors, formats and optimizers cost, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from altgrad_core.execution.format_speed import PLAIN, FormatSpeeds
from altgrad_core.execution.format_work import COPY
from altgrad_core.execution.monitor_speed import ALL, NONE, MonitorCost
from altgrad_core.execution.optimizer_speed import OptimizerSpeeds

_NOTE = (
    "Median milliseconds of a step, interleaved in one process; ratio of the average step to none."
)


def speed_table(costs: Sequence[MonitorCost]) -> Table:
    """One row per monitor."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption=_NOTE, caption_justify="left")
    table.add_column("Monitor", no_wrap=True)
    for title in ("Interval", "Step, due", "Step, other", "Average", "Ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    for cost in costs:
        alone = cost.name not in (NONE, ALL)
        table.add_row(
            cost.name,
            str(cost.interval) if alone else "–",
            f"{cost.due:.2f}" if alone else "–",
            f"{cost.other:.2f}" if cost.name != ALL else "–",
            f"{cost.average:.2f}",
            f"{cost.ratio:.3f}",
        )
    return table


def format_speed_tables(found: FormatSpeeds) -> list[Table]:
    """One table for each kind of work, the rival first."""
    kinds = dict.fromkeys(row.work for row in found.rows if row.work != COPY)
    return [_format_table(found, kind) for kind in kinds]


def _format_table(found: FormatSpeeds, kind: str) -> Table:
    rows = [row for row in found.rows if row.work == kind and row.format != PLAIN]
    beside = rows[0].beside if rows else kind
    rivals = [row for row in found.rows if row.work == beside and row.format == PLAIN]
    title = kind.replace("_", " ")
    rival = "a plain copy" if beside == COPY else "the same in float32"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("Format", no_wrap=True)
    for heading in ("ms", "quartiles", "GB/s", f"times {rival}"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in (*rivals, *rows):
        rate = row.gigabytes_per_second
        table.add_row(
            rival if row.format == PLAIN else row.format,
            f"{row.median_ms:.3g}",
            f"{row.q1_ms:.3g}–{row.q3_ms:.3g}",
            "–" if rate is None else f"{rate:.3g}",
            f"{row.ratio:.3g}",
        )
    return table


def optimizer_speed_table(found: OptimizerSpeeds) -> Table:
    """One row for each optimizer and kind of weights, torch's own first."""
    title = f"step of {found.parameters} parameters, {found.format}"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for heading in ("Optimizer", "Weights"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ms", "quartiles", "times torch's fused AdamW"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(
            row.optimizer,
            row.weights,
            f"{row.median_ms:.3g}",
            f"{row.q1_ms:.3g}–{row.q3_ms:.3g}",
            f"{row.ratio:.3g}",
        )
    return table
