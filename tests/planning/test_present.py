from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console

from altgrad_core.planning.plan import Plan
from altgrad_core.planning.present import print_plan, totals

PlanOf = Callable[..., Plan]


def printed(plan: Plan, width: int = 160) -> str:
    out = io.StringIO()
    print_plan(plan, Console(file=out, width=width))
    return out.getvalue()


def test_the_table_holds_every_cell_with_its_id_or_its_reason(plan_of: PlanOf) -> None:
    plan = plan_of(
        "description: A test\nseeds: [0, 1]\nmatrix: {quantization.format: [bf16, e5m2, rare], "
        "optimizer.type: [adamw, manifold_adamw]}",
        "optimizer.type=adamw",
    )
    text = printed(plan)
    for cell in plan.cells:
        (row,) = [
            line for line in text.splitlines() if line.split()[:2] == [cell.label, str(cell.seed)]
        ]
        assert (cell.spec.id if cell.spec else "needs the Python module") in row
    assert "A test" in text
    assert "note: --set optimizer.type=adamw replaces the values of the axis" in text
    assert "6 cells: 4 to run, 2 skipped (3 conditions, 2 seeds)" in text


def test_nothing_is_read_as_markup_and_a_narrow_terminal_loses_no_id(plan_of: PlanOf) -> None:
    plan = plan_of("description: 'a [bold]word[/bold]'")
    text = printed(plan, width=50)
    assert "[bold]word[/bold]" in text
    assert plan.specs[0].id in text
    assert totals(plan) == "1 cell: 1 to run, 0 skipped (1 condition, 1 seed)"
