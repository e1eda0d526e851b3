"""Running a plan. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from altgrad_core.execution.cells import SuiteResult as SuiteResult
from altgrad_core.execution.cells import run_cells
from altgrad_core.execution.notices import NoticeBoard, Noticing, receivers
from altgrad_core.execution.options import Observer, RunOptions
from altgrad_core.execution.plan_file import SuiteHold
from altgrad_core.execution.store_hold import StoreHold
from altgrad_core.execution.tuning import run_tuned
from altgrad_core.interfaces.executor import Executor
from altgrad_core.planning.plan import Plan
from altgrad_core.registry.catalog import catalog


def run_suite(plan: Plan, options: RunOptions, observer: Observer) -> SuiteResult:
    """Run what is missing of ``plan``. Raises ``UserError`` before anything runs if the plan cannot be run.

    Where learning rates are ``auto``, the tuning runs come first.
    """
    executor: Executor = catalog().build("executor", options.executor, options.executor_settings)
    folder = options.runs / plan.suite.name
    board = NoticeBoard(receivers(plan), plan.suite.name, folder, observer.message)
    kept = options.store
    here = StoreHold(folder, kept, observer.message) if kept else SuiteHold(folder)
    with closing(executor), board, here as hold:
        seen = Noticing(board, observer)
        try:
            if plan.tuned:
                result = run_tuned(plan, executor, options, seen, hold)
            else:
                cells = plan.cells
                result = run_cells(plan.suite, cells, cells, executor, options, seen, hold)
        finally:
            left = hold.deliver()
            if left:
                observer.message(_left(left, options, folder))
        return board.ended(replace(result, unsent=left))


def _left(left: Mapping[str, str], options: RunOptions, folder: Path) -> str:
    command = options.command or f"altgrad-bench run SUITE --runs {options.store}"
    lacking = "1 run is" if len(left) == 1 else f"{len(left)} runs are"
    why = next(iter(left.values()))
    return (
        f"note: {lacking} not at {options.store}/{folder.name}: {why} Kept in {folder}, and sent from there, without "
        f"being made again, by: {command}"
    )
