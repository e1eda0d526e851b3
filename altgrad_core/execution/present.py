"""What monitors, formats, optimizers, steps and suites cost, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from altgrad_core.execution.format_speed import PLAIN, FormatSpeeds
from altgrad_core.execution.format_work import COPY
from altgrad_core.execution.monitor_speed import ALL, NONE, MonitorSpeeds
from altgrad_core.execution.optimizer_speed import OptimizerSpeeds
from altgrad_core.execution.rounding_speed import RoundingSpeeds
from altgrad_core.execution.speeds import Speeds
from altgrad_core.execution.step_speed import PLAIN as PLAIN_STEP
from altgrad_core.execution.step_speed import ConditionSpeeds
from altgrad_core.execution.suite_speed import SuiteSpeeds

_NOTE = (
    "Median milliseconds of a step, interleaved in one process; ratio of the average step to none."
)


def speed_table(found: MonitorSpeeds) -> Table:
    """One row per monitor."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption=_NOTE, caption_justify="left")
    table.add_column("Monitor", no_wrap=True)
    for title in ("Interval", "Step, due", "Step, other", "Average", "Ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    for cost in found.rows:
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
    return _ratio_table(found, title, "times torch's fused AdamW")


def rounding_speed_table(found: RoundingSpeeds) -> Table:
    """One row for each format, rounding and library; the copy first."""
    title = f"rounding of {found.elements} float32 into a given tensor"
    more = {
        "share of copy": lambda row: f"{row.share_of_copy:.3g}",
        "beside ours": lambda row: row.agreement or "",
    }
    return _ratio_table(found, title, "times a plain copy", more)


def condition_speed_table(found: ConditionSpeeds) -> Table:
    """One row for each condition, plain bf16 first."""
    return _ratio_table(found, f"training step of {found.suite}", f"times {PLAIN_STEP}")


def suite_speed_table(found: SuiteSpeeds) -> Table:
    """One row for each run, the whole suite last."""
    more = {"bare steps, ms": lambda row: f"{row.bare_ms:.5g}"}
    return _ratio_table(found, f"runs of {found.suite}", "times the bare steps", more)


_Columns = Mapping[str, Callable[[Any], str]]
_NO_MORE: _Columns = {}


def _ratio_table(found: Speeds[Any], title: str, ratio: str, more: _Columns = _NO_MORE) -> Table:
    """Names, milliseconds, the ratio and what there is ``more``, by heading."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for key in found.keys:
        table.add_column(key.capitalize(), no_wrap=True)
    for heading in ("ms", "quartiles", ratio, "quartiles", *more):
        table.add_column(heading, justify="right")
    for row in found.rows:
        table.add_row(
            *(getattr(row, key) for key in found.keys),
            f"{row.median_ms:.4g}",
            f"{row.q1_ms:.4g}–{row.q3_ms:.4g}",
            f"{row.ratio:.3g}",
            f"{row.ratio_q1:.3g}–{row.ratio_q3:.3g}",
            *(show(row) for show in more.values()),
        )
    return table
