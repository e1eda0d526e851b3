"""Stored results -> the tables that a report is made of.

What a suite answers is the question that was declared before its first run, with the seeds and the
conditions that were declared. Where the plan now asks something else (another contrast, metric or
margin, more seeds or conditions), that is a second answer, labelled exploratory, beside the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from altgrad_core.analysis.controls import COLUMNS as TWINS
from altgrad_core.analysis.controls import twins_table
from altgrad_core.analysis.decision import Progress, verdict_of
from altgrad_core.analysis.design import groups_of
from altgrad_core.analysis.effects import COLUMNS as EFFECTS
from altgrad_core.analysis.effects import effects_table
from altgrad_core.analysis.frames import (
    companions_table,
    conditions_table,
    curves_table,
    events_table,
    laid_out,
    layers_table,
    tuning_table,
)
from altgrad_core.analysis.pairs import COLUMNS as PAIRS
from altgrad_core.analysis.pairs import pairs_table
from altgrad_core.analysis.question import Asked, asked_of
from altgrad_core.analysis.sampling import drawn, resample_of, sampling_errors
from altgrad_core.interfaces.section import Findings, Question
from altgrad_core.results.collect import results_table
from altgrad_core.results.kept import StoredTuning
from altgrad_core.results.run_directory import FINISHED
from altgrad_core.results.stored import StoredRun, StoredSuite

_UNTUNED = StoredTuning(metric="", rates=(), seeds=())


def find(
    suite: StoredSuite, formats: pd.DataFrame | None = None, *, live: bool = False
) -> Findings:
    """All tables of a suite, and its verdict: see :class:`~altgrad_core.interfaces.section.Findings`.

    ``formats`` is :func:`~altgrad_core.analysis.formats.format_table`; without it there are no A/A pairs.
    ``live`` is for a page that is watched while runs are made: estimates alone, and no test. Where the
    plan asks another question than the one that was declared, ``beside`` holds its exploratory answer.

    Raises ``UserError`` for damaged files.
    """
    facts = formats if formats is not None else pd.DataFrame(columns=["grid", "uniform"])
    runs = results_table([suite])
    first, *others = asked_of(suite, runs)
    main = _answer(suite, runs, first, facts, live=live)
    beside = tuple(_answer(suite, runs, one, facts, live=live) for one in others)
    said = tuple(sentence for one in beside for sentence in one.verdict)
    return replace(main, verdict=(*main.verdict, *said), beside=beside)


def _answer(
    suite: StoredSuite,
    everything: pd.DataFrame,
    asked: Asked,
    formats: pd.DataFrame,
    *,
    live: bool,
) -> Findings:
    """The tables under one question."""
    question, runs = asked.question, asked.runs(everything)
    planned = runs[runs["planned"]]
    stored = {run.spec.id: run for run in suite.runs}
    mine = [stored[run_id] for run_id in dict.fromkeys(planned["id"]) if run_id in stored]
    progress = _progress(planned, live)
    groups = list(groups_of(runs, question)) if question is not None else []
    laid = laid_out(runs, question)
    pairs, effects, twins = (pd.DataFrame(columns=list(c)) for c in (PAIRS, EFFECTS, TWINS))
    if question is not None:
        complete = progress.complete
        pairs = pairs_table(groups, runs, question.metric, question.declared)
        effects = effects_table(
            groups, pairs, question, formats=formats, tuning=suite.tuning, complete=complete
        )
        if complete:
            effects["sampling_std"] = effects["group"].map(_errors(pairs, question, stored))
        twins = twins_table(runs, question.metric, question.declared, formats)
    return Findings(
        suite=suite.name,
        question=question,
        metrics=suite.metrics,
        complete=progress.complete,
        verdict=verdict_of(
            question, effects, twins, progress, _tuned(suite, planned), asked.exploratory
        ),
        runs=runs,
        conditions=conditions_table(laid, question, suite.metrics),
        pairs=pairs,
        effects=effects,
        companions=companions_table(groups, question, suite.metrics, runs),
        twins=twins,
        layers=layers_table(mine, laid),
        events=events_table(mine, laid),
        curves=curves_table(mine, laid, suite.metrics),
        tuning=tuning_table(suite.tuning or _UNTUNED),
        formats=formats,
        description=suite.plan.description if suite.plan is not None else "",
        commands=tuple(suite.plan.command.splitlines()) if suite.plan is not None else (),
        exploratory=asked.exploratory,
        notes=suite.notes,
        facts=_facts(mine),
    )


def _progress(planned: pd.DataFrame, live: bool) -> Progress:
    """How many of the runs that can be made have a result."""
    wanted = planned[planned["status"] != "skipped"]
    return Progress(len(wanted), int(wanted["status"].isin(list(FINISHED)).sum()), live)


def _tuned(suite: StoredSuite, planned: pd.DataFrame) -> bool:
    """Whether the learning rate of every condition was tuned."""
    return suite.tuning is not None and set(planned["condition"]) <= set(suite.tuning.conditions)


def _errors(
    pairs: pd.DataFrame, question: Question, stored: Mapping[str, StoredRun]
) -> dict[str, float]:
    """The error of each group's mean gain that the test examples make, as far as it can be known."""
    tasks = {stored[i].spec.task.name for i in (*pairs["baseline_id"], *pairs["treatment_id"])}
    if not question.metric.startswith("final/") or len(tasks) != 1:
        return {}
    resample = resample_of(tasks.pop())
    return sampling_errors(
        pairs, question.declared, lambda run_id: drawn(stored[run_id], question.metric, resample)
    )


def _facts(runs: list[StoredRun]) -> Mapping[str, Any]:
    """Task -> what it said of its data."""
    found: dict[str, Any] = {}
    for run in runs:
        if run.spec.task.name not in found and run.facts:
            found[run.spec.task.name] = run.facts.get("data", run.facts)
    return found
