"""A plan as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from altgrad_core._axis import axis_text
from altgrad_core.planning.draft import Draft
from altgrad_core.planning.plan import Cell, Plan
from altgrad_core.planning.suite import find_suite, load_suite
from altgrad_core.planning.tune import AUTO, COARSE, widest_step


def print_plan(plan: Plan, console: Console) -> None:
    """Print every cell with its run id, or the reason why it is skipped; then notes and totals."""
    console.print(Text.assemble((plan.suite.name, "bold"), f"  ({plan.suite.source})"))
    if plan.suite.description:
        console.print(Text(plan.suite.description, style="dim"))
    console.print()
    console.print(plan_table(plan))
    console.print()
    for note in plan.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    console.print(Text(totals(plan)))


def described_suite(name: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """What a suite declares, overrides applied, as plain data. Nothing of it is planned.

    Raises ``UserError`` as :func:`~altgrad_core.planning.suite.load_suite` does.
    """
    suite = load_suite(name, settings)
    base = Draft()
    for given in suite.base:
        base.assign(given)
    tuned = base.values.get("training", {}).get("learning_rate") == AUTO
    return {
        "kind": "suite",
        "name": suite.name,
        "description": suite.description,
        "file": str(find_suite(name)[0]),
        "seeds": list(suite.seeds),
        "settings": base.values,
        "axes": [
            [{given.key: given.value.data for given in row} for row in axis.rows]
            for axis in suite.axes
        ],
        "include": [{given.key: given.value.data for given in row} for row in suite.include],
        "exclude": [
            {".".join(path): list(values) for path, values in one.wanted} for one in suite.exclude
        ],
        "overrides": {given.key: given.value.data for given in suite.forced},
        "contrast": suite.contrast.model_dump(mode="json") if suite.contrast else None,
        "tune": suite.tune.model_dump(mode="json") if tuned else None,
        "notes": list(suite.notes),
    }


def print_suite(name: str, settings: Sequence[str], console: Console) -> None:
    """Print what a suite declares, as YAML. Raises as :func:`described_suite`."""
    found = described_suite(name, settings)
    console.print(Text(f"suite {found.pop('name')}: {found.pop('description')}", style="bold"))
    console.print(Text(f"from {found.pop('file')}"))
    del found["kind"]
    console.print()
    shown = {key: value for key, value in found.items() if value}
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100)
    console.print(Text(text.rstrip()))
    console.print()
    console.print(Text(f"altgrad-bench plan {name} shows its cells", style="dim"))


def plan_table(plan: Plan) -> Table:
    """One row per cell; columns for the axes along which the plan varies."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    axes = _varying(plan.cells)
    table.add_column("condition", no_wrap=True)
    table.add_column("seed", justify="right")
    for key in axes:
        table.add_column(key, overflow="fold")
    table.add_column("run", no_wrap=True)
    table.add_column("steps", justify="right")
    skips = any(cell.skip for cell in plan.cells)
    if skips:
        table.add_column("skipped because", overflow="fold")
    for cell in plan.cells:
        values = [axis_text(cell.axes.get(key)) for key in axes]
        run = [cell.spec.id, str(cell.spec.training.max_steps)] if cell.spec else ["–", "–"]
        if cell.template is not None:
            run = ["after tuning", str(cell.template.training.max_steps)]
        row = [cell.label, str(cell.seed), *values, *run]
        row += [cell.skip or ""] if skips else []
        table.add_row(*map(Text, row), style=None if cell.skip is None else "dim")
    return table


def totals(plan: Plan) -> str:
    """``12 cells: 12 to run, 0 skipped (12 conditions, 1 seed)``."""
    cells, runs = len(plan.cells), sum(cell.skip is None for cell in plan.cells)
    conditions = len({cell.label for cell in plan.cells})
    counts = f"{_count(conditions, 'condition')}, {_count(len(plan.suite.seeds), 'seed')}"
    text = f"{_count(cells, 'cell')}: {runs} to run, {cells - runs} skipped ({counts})"
    return f"{text}\n{_tuning(plan)}" if plan.tuned else text


def _tuning(plan: Plan) -> str:
    tune, tuned = plan.suite.tune, len(plan.tuned)
    rates, seeds = len(tune.learning_rates), len(tune.seeds)
    step = widest_step(tune.learning_rates)
    coarse = (
        f"\nneighbouring rates are a factor {step:.3g} apart; more than {COARSE:g} can make a difference "
        "by itself"
    )
    return (
        f"before them {rates * tuned * seeds} tuning runs: {_count(rates, 'learning rate')} x "
        f"{_count(tuned, 'condition')} x {_count(seeds, 'seed')}, and up to {tune.max_extensions} "
        f"more rates for all conditions while the best of one lies on an edge"
        f"{coarse if step > COARSE * 1.01 else ''}"
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _varying(cells: Iterable[Cell]) -> list[str]:
    values: dict[str, set[str]] = {}
    for cell in cells:
        for key, value in cell.axes.items():
            values.setdefault(key, set()).add(axis_text(value))
    return [key for key, found in values.items() if len(found) > 1]
