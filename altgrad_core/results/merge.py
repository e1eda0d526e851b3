"""Several sources of one suite, as one: machines that shared the work, or a copy and its original."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from altgrad_core.results.differences import (
    in_words,
    outcome_differences,
    setting_differences,
    some,
)
from altgrad_core.results.kept import Declaration, PlannedCell, StoredPlan, StoredTuning
from altgrad_core.results.run_directory import FINISHED
from altgrad_core.results.stored import StoredRun, StoredSuite

_ValueT = TypeVar("_ValueT", bound=Hashable)


def merge_suites(suites: Sequence[StoredSuite]) -> StoredSuite:
    """One suite out of several of the same name, in their order.

    * **Runs** are the same if they have the same id. The first one with a result counts; without a
      result, the one that got farthest. Results that differ are a note.
    * **Cells** are the union of the plans'. A cell that one plan skips and another runs is run. Where
      two plans have different runs for one condition and seed (other settings, or other versions),
      one of them counts, and that is a note: the first that has a result, else the first.
    * **The contrast**, the margin and what was tuned are the first source's that has them. Others
      that say something else are a note. Commands are listed one below the other.

    Raises:
        ValueError: For no suite, or suites of different names.
    """
    if len({suite.name for suite in suites}) != 1:
        raise ValueError(f"suites of one name are needed: {[suite.name for suite in suites]}")
    if len(suites) == 1:
        return suites[0]
    notes = [note for suite in suites for note in suite.notes]
    runs = _merged_runs(suites, notes)
    plan = _merged_plan(suites, runs, notes)
    tuning = _merged_tuning(suites, notes)
    found = tuple(runs.values())
    faults = {name: fault for suite in suites for name, fault in suite.damaged.items()}
    damaged = {name: fault for name, fault in faults.items() if name not in runs}
    notes = list(dict.fromkeys(notes))
    return StoredSuite(suites[0].path, plan, found, tuning, tuple(notes), damaged=damaged)


def plan_of_runs(suite: StoredSuite) -> StoredPlan:
    """A plan that asks for the runs that are there, for a suite whose plan was not kept."""
    cells = (
        PlannedCell(id=s.id, condition=s.condition, seed=s.seed, axes=s.axes)
        for s in (run.spec for run in suite.runs)
    )
    return StoredPlan(suite=suite.name, cells=tuple(cells))


def _merged_runs(suites: Sequence[StoredSuite], notes: list[str]) -> dict[str, StoredRun]:
    copies: dict[str, list[StoredRun]] = {}
    for suite in suites:
        for run in suite.runs:
            copies.setdefault(run.spec.id, []).append(run)
    cases: list[str] = []
    runs = {run_id: _best(same, cases) for run_id, same in copies.items()}
    if cases:
        head = "Runs that are in several sources, and ended differently there; the first counts"
        notes.append(f"{head}: {some(cases)}.")
    return runs


def _best(same: Sequence[StoredRun], cases: list[str]) -> StoredRun:
    if len(same) == 1:
        return same[0]
    done = [run for run in same if run.status.status in FINISHED]
    if not done:
        return max(same, key=lambda run: run.status.step)
    for other in done[1:]:
        if found := outcome_differences(done[0], other):
            spec = other.spec
            where = f"{done[0].location} and {other.location}"
            cases.append(f"{spec.condition} seed {spec.seed}, {where} ({in_words(found)})")
            break
    return done[0]


def _merged_plan(
    suites: Sequence[StoredSuite], runs: dict[str, StoredRun], notes: list[str]
) -> StoredPlan | None:
    plans = [suite.plan for suite in suites if suite.plan is not None]
    if not plans:
        plans = [plan_of_runs(suite) for suite in suites]
    chosen: dict[tuple[str, str, int], PlannedCell] = {}
    cases: list[str] = []
    for cell in (cell for plan in plans for cell in plan.cells):
        key = (cell.stage, cell.condition, cell.seed)
        chosen[key] = _better(chosen[key], cell, runs, cases) if key in chosen else cell
    if cases:
        head = "Cells that the sources ran with different settings or versions, of which one counts"
        notes.append(f"{head}: {some(cases)}.")
    commands = dict.fromkeys(plan.command for plan in plans if plan.command)
    return plans[0].model_copy(
        update={
            "cells": tuple(chosen.values()),
            "command": "\n".join(commands),
            "description": next((plan.description for plan in plans if plan.description), ""),
            "contrast": _first("contrasts", (plan.contrast for plan in plans), notes),
            "margin": _first("margins", (plan.margin for plan in plans), notes),
            "declared": _declared(suites, notes),
        }
    )


def _better(
    old: PlannedCell, new: PlannedCell, runs: dict[str, StoredRun], cases: list[str]
) -> PlannedCell:
    """Which of two cells with one condition and seed counts."""
    if new.id is None or new.id == old.id:
        return old
    if old.id is None:
        return new
    a, b = (runs.get(cell.id or "") for cell in (old, new))
    done = [run is not None and run.status.status in FINISHED for run in (a, b)]
    first, second = (new, old) if done == [False, True] else (old, new)
    why = ""
    if a is not None and b is not None:
        specs = (a.spec, b.spec) if first is old else (b.spec, a.spec)
        why = f" ({in_words(setting_differences(*specs)) or 'other settings of spec.yaml'})"
    cases.append(f"{first.condition} seed {first.seed}, {first.id} and not {second.id}{why}")
    return first


def _declared(suites: Sequence[StoredSuite], notes: list[str]) -> Declaration | None:
    """One declaration out of those of several machines, which each declared their part of the work.

    None where a source has none, or where they declared different questions. What one declared after
    another had results does not count: it may have been chosen by them.
    """
    found = [suite.plan.declared for suite in suites if suite.plan is not None]
    known = [one for one in found if one is not None]
    if len(known) < len(suites):
        return None
    first = min(known, key=lambda one: one.at)
    questions = {(one.contrast, one.margin) for one in known}
    if len(questions) > 1:
        notes.append("The sources declare different questions, so that none counts as declared.")
        return None
    done = (run.status for suite in suites for run in suite.runs)
    updated = (one.updated for one in done if one.status in FINISHED)
    ended = min((at for at in updated if at is not None), default=None)
    mine = (set(first.seeds), set(first.conditions))
    for one in known:
        more = not (set(one.seeds) <= mine[0] and set(one.conditions) <= mine[1])
        if more and ended is not None and one.at > ended:
            return first
    seeds = dict.fromkeys(seed for one in known for seed in one.seeds)
    conditions = dict.fromkeys(name for one in known for name in one.conditions)
    return first.model_copy(update={"seeds": tuple(seeds), "conditions": tuple(conditions)})


def _merged_tuning(suites: Sequence[StoredSuite], notes: list[str]) -> StoredTuning | None:
    tunings = [suite.tuning for suite in suites if suite.tuning is not None]
    if not tunings:
        return None
    first = tunings[0]
    _first("protocols of tuning", ((t.metric, t.rates, t.seeds) for t in tunings), notes)
    conditions = dict(first.conditions)
    for tuning in tunings[1:]:
        alike = (tuning.metric, tuning.seeds) == (first.metric, first.seeds)
        for name, found in tuning.conditions.items():
            if not alike:
                found = found.model_copy(update={"scores": {}})  # no rows of the same table
            known = conditions.setdefault(name, found)
            if known.chosen != found.chosen:
                rates = f"{known.chosen:g} and {found.chosen:g}"
                notes.append(f"The sources chose different learning rates for {name}: {rates}.")
    return first.model_copy(update={"conditions": conditions})


def _first(what: str, values: Iterable[_ValueT | None], notes: list[str]) -> _ValueT | None:
    """The first value that is not None, with a note if another one differs."""
    known = list(dict.fromkeys(value for value in values if value is not None))
    if len(known) > 1:
        notes.append(f"The sources declare different {what}; the first one is used.")
    return known[0] if known else None
