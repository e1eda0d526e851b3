"""``plan.json``: what a suite set out to do, written by whoever runs it, and by one at a time.

Processes that run the same suite in one folder share the work. One that would run other cells there, or ask
another question, is refused while another lives: its plan would take the place of the first one's.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from altgrad_core._files import write_json
from altgrad_core.errors import UserError
from altgrad_core.locks.lock import file_lock, is_running
from altgrad_core.planning.declaration import Suite
from altgrad_core.planning.plan import Cell, metrics_of
from altgrad_core.results.kept import StoredPlan
from altgrad_core.results.objects import read_object
from altgrad_core.results.run_directory import FINISHED, RunDirectory
from altgrad_core.results.stored import read_plan


class SuiteHold(contextlib.ExitStack):
    """The folder of a suite that this process runs, until it ends; others may run the same suite."""

    store = ""
    """The URL under which its runs are kept as well, if any."""
    imports: tuple[str, ...] = ()
    """What the runs' processes import for that."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def ended(self, directory: RunDirectory) -> None:
        """The process of a run has ended, whose status is now to be settled."""

    def bring_report(self, path: Path) -> None:
        """Bring what the process that prepared the data has said, if it did so on another machine."""

    def is_running(self, directory: RunDirectory) -> bool:
        """Whether a process has a run in hand."""
        return is_running(directory.lock)

    def deliver(self) -> dict[str, str]:
        """Nothing more will be run: the runs that are not where they are to be kept, and why, by id."""
        return {}

    @contextlib.contextmanager
    def changing(self) -> Iterator[bool]:
        """Keep others from beginning; whether another process is running the suite.

        Raises :class:`~altgrad_core.locks.lock.LockRefused`.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = self._folder / "lock"
        with file_lock(self._folder / "plan.lock", seconds=math.inf):
            self.close()
            with file_lock(lock, seconds=0) as alone:
                pass
            yield not alone
            self.enter_context(file_lock(lock, seconds=math.inf, shared=True))


HERE = SuiteHold(Path())
"""Of runs that lie where they are made."""


def plan_of(folder: Path, suite: Suite, cells: Sequence[Cell], command: str) -> dict[str, Any]:
    """Contents of ``plan.json``: which cells the suite has, for ``status`` and ``report``."""
    contrast = suite.contrast.model_dump(mode="json") if suite.contrast is not None else None
    return {
        "suite": suite.name,
        "description": suite.description,
        "command": command,
        "metrics": [asdict(metric) for metric in metrics_of(cells)],
        "contrast": contrast,
        "margin": suite.contrast.margin if suite.contrast is not None else None,
        "declared": _declaration(folder, suite, cells),
        "cells": [
            {
                "id": cell.spec.id if cell.spec else None,
                "condition": cell.label,
                "seed": cell.seed,
                "axes": dict(cell.axes),
                "skip": cell.skip,
                "stage": cell.stage,
            }
            for cell in cells
        ],
    }


def write_plan(folder: Path, plan: Mapping[str, Any], *, shared: bool = False) -> None:
    """Write ``plan.json``; where others run the suite too, unless theirs knows more runs already."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (shared and _known(_plan_there(folder)) > _known(StoredPlan.model_validate(plan))):
        write_json(folder / "plan.json", plan)


def refuse_another(folder: Path, plan: Mapping[str, Any]) -> None:
    """Raise ``UserError`` where the plan in ``folder`` asks for something else than ``plan``.

    Cells of tuning may be more in one than in the other, which is further on.
    """
    there, wanted = _plan_there(folder), StoredPlan.model_validate(plan)
    ids = [{(c.stage, c.condition, c.seed): c.id for c in one.cells} for one in (there, wanted)]
    final = [{key for key in one if key[0] == "final"} for one in ids]
    other = ""
    if (there.contrast, there.margin) != (wanted.contrast, wanted.margin):
        other = "another contrast or margin"
    elif final[0] != final[1]:
        other = "other conditions or seeds"
    elif any(ids[0].get(key) not in (None, one) for key, one in ids[1].items() if one):
        other = "other settings or versions"
    if other and there.cells:
        raise UserError(
            f"{folder} is being run by another process with {other}. Wait for it, stop it, or name "
            "another folder with --runs."
        )


def _plan_there(folder: Path) -> StoredPlan:
    there = (folder / "plan.json").exists()
    return read_plan(folder) if there else StoredPlan(suite=folder.name)


def _known(plan: StoredPlan) -> int:
    return sum(cell.id is not None for cell in plan.cells)


def _declaration(folder: Path, suite: Suite, cells: Sequence[Cell]) -> dict[str, Any] | None:
    """What the suite is to answer: fixed when its first run starts, and never changed after.

    None for a folder with results that were made before anything was declared.
    """
    before = read_object(folder / "plan.json")
    if "declared" in before:
        read_plan(folder)  # raises where it is no plan
        kept: dict[str, Any] | None = before["declared"]
        return kept
    there = (RunDirectory(one).status() for one in (folder.iterdir() if folder.is_dir() else ()))
    if any(status.status in FINISHED for status in there):
        return None
    final = [cell for cell in cells if cell.stage == "final"]
    specs = [spec for cell in final if (spec := cell.spec or cell.template) is not None]
    asked = suite.contrast
    return {
        "at": time.time(),
        "versions": {name: v for spec in specs for name, v in spec.distributions.items()},
        "contrast": asked.model_dump(mode="json", exclude={"margin"}) if asked else None,
        "metric": asked.metric if asked is not None else None,
        "margin": asked.margin if asked is not None else None,
        "seeds": list(dict.fromkeys(cell.seed for cell in final)),
        "conditions": list(dict.fromkeys(cell.label for cell in final)),
    }
