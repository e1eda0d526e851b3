"""Running a plan. Free of torch."""

from __future__ import annotations

from contextlib import closing

from altgrad_core.execution.cells import SuiteResult as SuiteResult
from altgrad_core.execution.cells import run_cells
from altgrad_core.execution.notices import NoticeBoard, Noticing, receivers
from altgrad_core.execution.options import Observer, RunOptions
from altgrad_core.execution.plan_file import SuiteHold
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
    with closing(executor), board, SuiteHold(folder) as hold:
        seen = Noticing(board, observer)
        if plan.tuned:
            return board.ended(run_tuned(plan, executor, options, seen, hold))
        cells = plan.cells
        return board.ended(run_cells(plan.suite, cells, cells, executor, options, seen, hold))
