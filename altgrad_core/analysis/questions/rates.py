"""The learning-rate protocol: what was tried, what was chosen, and where each condition breaks."""

from __future__ import annotations

from pathlib import Path

from altgrad_core.analysis.document import Block, Cell, Paragraph, Section, Table
from altgrad_core.analysis.figures import tuning_figure
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.numbers import NONE, counted, score, spread, with_spread
from altgrad_core.analysis.tables import number_table
from altgrad_core.analysis.words import named, rates
from altgrad_core.results.stored import StoredTuning, TunedCondition

TITLE = "Learning rates"


def section(found: Findings, folder: Path) -> Section:
    """The protocol and its curves; without it, what the runs used instead."""
    tuning = found.tuning
    if tuning is None:
        text = rates(found) or "No run is there yet to tell its learning rate."
        more = (
            " With training.learning_rate: auto it is tuned for each condition, at equal budgets."
        )
        return Section(TITLE, [Paragraph(text + more)])
    text = " ".join(filter(None, [_answer(tuning), rates(found)]))
    blocks: list[Block] = [Paragraph(text), _table(tuning)]
    figure = tuning_figure(found)
    return Section(TITLE, [*blocks, figure] if figure is not None else blocks)


def _answer(tuning: StoredTuning) -> str:
    runs = len(tuning.rates) * len(tuning.seeds)
    shown = ", ".join(f"{rate:g}" for rate in tuning.rates)
    seeds = ", ".join(map(str, tuning.seeds))
    text = (
        f"Every condition was trained at the same {counted(len(tuning.rates), 'rate')} ({shown}) with "
        f"{counted(len(tuning.seeds), 'seed')} of their own ({seeds}), {counted(runs, 'run')} each, and "
        f"judged by {tuning.metric}. {_extended(tuning)}"
    )
    censored = [name for name, one in tuning.conditions.items() if one.censored]
    if not censored:
        return f"{text} No best rate lies on an edge of the grid."
    return (
        f"{text} The best rate of {named(censored)} still lies on an edge of the grid: what these "
        "conditions reach at their own best rate is not known, and their differences are censored."
    )


def _extended(tuning: StoredTuning) -> str:
    if not tuning.extensions:
        return f"The grid was not extended ({counted(tuning.max_extensions, 'rate')} allowed)."
    added = counted(tuning.extensions, "rate")
    return f"The grid was extended by {added} of at most {tuning.max_extensions}, for all alike."


def _table(tuning: StoredTuning) -> Table:
    head = number_table(
        ("Condition",),
        ("Chosen", "Score there", "Largest stable rate", "Diverged runs", "Rates tried"),
    )
    rows = tuple(_row(name, one) for name, one in tuning.conditions.items())
    caption = (
        "Score: of validation, mean ± standard deviation over the tuning seeds. Largest stable rate: "
        "the largest at which no run diverged and the mean score is at least half of the best; ≥ where "
        "it is the largest that was tried."
    )
    return Table(head, rows, caption)


def _row(name: str, one: TunedCondition) -> tuple[Cell, ...]:
    curve = one.curve()
    stable, largest = one.largest_stable, max(curve, default=None)
    limit = NONE if stable is None else f"{'≥ ' if stable == largest else ''}{stable:g}"
    chosen = f"{one.chosen:g}"
    return (
        Cell(name),
        Cell(
            f"{chosen}, censored" if one.censored else chosen,
            tone="bad" if one.censored else "plain",
        ),
        Cell(
            with_spread(spread(curve[one.chosen])) if one.chosen in curve else score(float("nan"))
        ),
        Cell(limit),
        Cell(str(sum(one.diverged.values()))),
        Cell(str(len(curve))),
    )
