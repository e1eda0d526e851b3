"""What monitors cost, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from altgrad_core.execution.monitor_speed import ALL, NONE, MonitorCost

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
