"""What a suite answers: the question that was declared before its first run, and others beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from altgrad_core._axis import is_axis
from altgrad_core.analysis.words import listed, score
from altgrad_core.errors import UserError
from altgrad_core.interfaces.metric import declared
from altgrad_core.interfaces.section import Question
from altgrad_core.results.kept import Contrast, Declaration
from altgrad_core.results.run_directory import FINISHED
from altgrad_core.results.stored import StoredSuite

UNDECLARED = "no question was declared before the first run"


@dataclass(frozen=True)
class Asked:
    """A question, the runs that it is about, and why it is not the one that was declared.

    ``seeds`` and ``conditions`` are those that were declared; None for all that the plan has.
    """

    question: Question | None
    exploratory: tuple[str, ...] = ()
    seeds: frozenset[int] | None = None
    conditions: frozenset[str] | None = None

    def runs(self, everything: pd.DataFrame) -> pd.DataFrame:
        """All runs; ``planned`` are those of the question.

        A declared run that the plan has dropped since, but that has a result, is one of them if it had
        the data and the settings of its condition's other runs; where the plan has none of that
        condition, the data, task and training, axes aside, that all of the plan's runs have.
        """
        if self.seeds is None or self.conditions is None:
            return everything
        mine = everything["seed"].isin(list(self.seeds)) & (everything["stage"] == "final")
        mine &= everything["condition"].isin(list(self.conditions))
        planned = everything["planned"] & mine
        asked = everything[planned].set_index(["condition", "seed"])
        rest = everything[mine & ~planned & everything["status"].isin(list(FINISHED))]
        new = ~rest.set_index(["condition", "seed"]).index.isin(asked.index)
        dropped = rest[_alike(everything, rest, planned) & new]
        dropped = dropped.drop_duplicates(["condition", "seed"])
        return everything.assign(planned=planned | everything.index.isin(dropped.index))


def _alike(
    everything: pd.DataFrame, rest: pd.DataFrame, planned: pd.Series[bool]
) -> pd.Series[bool]:
    """Which of the runs ``rest`` were made as the ``planned`` ones of ``everything`` are."""
    known = everything["settings"] != ""
    whole, shared = everything["settings"] + everything["fingerprint"], _shared(everything)
    of_condition = whole[planned & known].groupby(everything["condition"]).last()
    own = rest["condition"].map(of_condition)
    others = set(shared[everything["planned"] & known])
    return (own == whole[rest.index]) | (own.isna() & shared[rest.index].isin(others))


def _shared(everything: pd.DataFrame) -> pd.Series[str]:
    """What the conditions of a suite have in common: data, task and training, but for the axes."""
    axes = {str(column).rpartition(".")[2] for column in everything if is_axis(str(column))}
    free = axes | {"learning_rate"}  # which may be tuned for each

    def rest(held: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in held.items() if name not in free}

    def text(settings: str, fingerprint: str) -> str:
        parts = json.loads(settings or "{}", object_hook=rest)
        return json.dumps([fingerprint, parts.get("task"), parts.get("training")])

    rows = zip(everything["settings"], everything["fingerprint"], strict=True)
    return pd.Series([text(*row) for row in rows], index=everything.index, dtype=object)


def asked_of(suite: StoredSuite, everything: pd.DataFrame) -> list[Asked]:
    """The question that counts first; a second one where the plan now asks another."""
    plan = suite.plan
    contrast = plan.contrast if plan is not None else None
    margin = plan.margin if plan is not None else None
    now = question_of(suite, contrast, margin)
    before = plan.declared if plan is not None else None
    if before is None:
        return [Asked(now, (UNDECLARED,) if now is not None else ())]
    planned = everything[everything["planned"]]
    reasons = tuple(_changes(before, now, planned))
    seeds, conditions = frozenset(before.seeds), frozenset(before.conditions)
    first = question_of(suite, before.contrast, before.margin)
    if not reasons:
        return [Asked(first)]
    if first is None or not conditions & set(planned["condition"]):
        return [Asked(now, reasons)]
    return [Asked(first, (), seeds, conditions), Asked(now, reasons)]


def question_of(
    suite: StoredSuite, contrast: Contrast | None, margin: float | None
) -> Question | None:
    """The question of a contrast, with what the task declares of its metric; None without one."""
    if contrast is None:
        return None
    metric = declared(contrast.metric, suite.metrics)
    if metric is None:
        known = listed(one.name for one in suite.metrics)
        raise UserError(f"The task declares no metric {contrast.metric}; it declares {known}.")
    return Question(
        contrast.axis, contrast.baseline, contrast.treatment, contrast.metric, metric, margin
    )


def _changes(before: Declaration, now: Question | None, planned: pd.DataFrame) -> Iterator[str]:
    """What is asked now and was not declared, a clause each."""
    old = before.contrast
    if now is None:
        if old is not None:
            yield "the contrast that was declared is gone"
        return
    if old is None:
        yield "no contrast was declared"
        return
    if (old.axis, old.baseline, old.treatment) != (now.axis, now.baseline, now.treatment):
        yield f"declared was {old.axis}: {old.treatment} against {old.baseline}"
    if old.metric != now.metric:
        yield f"declared was the metric {old.metric}"
    if before.margin != now.margin:
        margin = "no margin" if before.margin is None else f"the margin ±{score(before.margin)}"
        yield f"declared was {margin}"
    seeds, conditions = set(planned["seed"]), list(dict.fromkeys(planned["condition"]))
    if added := sorted(seeds - set(before.seeds)):
        yield f"{_seeds(added)} added after the declaration"
    if dropped := sorted(set(before.seeds) - seeds):
        yield f"{_seeds(dropped)} dropped after the declaration"
    new = [name for name in conditions if name not in before.conditions]
    gone = [name for name in before.conditions if name not in conditions]
    for word, names in (("added", new), ("dropped", gone)):
        if names:
            shown = listed(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            yield f"{shown} {word} after the declaration"


def _seeds(numbers: list[int]) -> str:
    return f"seed{'s' if len(numbers) > 1 else ''} {listed(map(str, numbers))}"
