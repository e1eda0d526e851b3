"""What a section of the report must be: it reads the tables of a suite and answers one question.

The tables are made once; a section opens no run directory. Each is a pandas frame and can be exported
as it is. A value that is not known is NaN, or an empty text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from altgrad_core.interfaces.blocks import Block
from altgrad_core.interfaces.metric import Metric

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Question:
    """What a suite compares: two values of one axis, under one metric.

    ``metric`` is the column of ``runs`` that decides, ``declared`` what the task says of it;
    ``margin`` is the smallest difference that matters, in its units.
    """

    axis: str
    baseline: str
    treatment: str
    metric: str
    declared: Metric
    margin: float | None = None


@dataclass(frozen=True)
class Findings:
    """Everything that a report says, as tables.

    suite:
        The suite's name.
    description:
        What its author says of it.
    commands:
        The command lines that ran it.
    question:
        What it compares; None without a contrast.
    metrics:
        What the task measures, as it declares it.
    complete:
        Whether every planned cell has a result or is skipped.
    verdict:
        The answer, in sentences.
    exploratory:
        Why this is not the answer to the question that was declared before the first
        run; empty where it is.
    notes:
        What happened while the results were read.
    runs:
        A row per run: the columns of ``load_results``.
    conditions:
        A row per condition: ``condition, label, format, optimizer, side, panel,
        setting, runs, status, ok, diverged`` and, for each score ``S`` of the main table, ``S``
        (mean over seeds), ``S std`` and ``S n``.
    pairs:
        A row per group and seed: ``group, seed, baseline_id, treatment_id, baseline,
        treatment, delta, gain, diverged`` (``baseline``, ``treatment``, ``both`` or empty),
        ``dropped`` (why the pair does not count, or empty).
    effects:
        A row per group; see :mod:`altgrad_core.analysis.effects` for its columns.
    companions:
        ``group, metric, delta, gain, n`` under every other final metric: described,
        not tested.
    twins:
        Runs that ought to be equal, by seed: ``setting, formats, seed, difference, status``
        (``equal``, ``differ`` or ``undecided``), ``why``.
    layers:
        ``id, condition, format, side, layer, metric, first, last, mean`` of what monitors
        measured by layer.
    events:
        ``id, condition, format, seed, step, kind, layer, message``.
    curves:
        ``id, condition, panel, side, seed, step, metric, value``.
    tuning:
        ``condition, metric, rate, seed, score, diverged, chosen, censored, largest_stable``.
    formats:
        Facts of each format that is installed here, by its label (the index).
    """

    suite: str
    question: Question | None
    metrics: tuple[Metric, ...]
    complete: bool
    verdict: tuple[str, ...]
    runs: pd.DataFrame
    conditions: pd.DataFrame
    pairs: pd.DataFrame
    effects: pd.DataFrame
    companions: pd.DataFrame
    twins: pd.DataFrame
    layers: pd.DataFrame
    events: pd.DataFrame
    curves: pd.DataFrame
    tuning: pd.DataFrame
    formats: pd.DataFrame
    description: str = ""
    commands: tuple[str, ...] = ()
    exploratory: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    beside: tuple[Findings, ...] = ()
    """Exploratory answers beside this one: to another question than was declared, or of more seeds."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the prepared data of each task, as ``Task.facts`` gave them: task -> fact -> value."""


class Section(ABC):
    """A part of the report that answers one question."""

    title: str
    """Its heading: what is asked, in a few words."""

    always: bool = False
    """Whether it is in a report of other questions, too."""

    @abstractmethod
    def build(self, found: Findings) -> Sequence[Block]:
        """The blocks of the section; none leaves it out. Raises nothing for what was not measured:
        a section that a reader would miss says what is missing, and how to have it.
        """
