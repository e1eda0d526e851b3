"""The report's content: the verdict, then a section per question. What is not there is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from altgrad_core.analysis.conclusion import verdict
from altgrad_core.analysis.document import Block, Document, Paragraph, Section
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.questions import (
    benefit,
    controls,
    failures,
    layers,
    performance,
    properties,
    ranks,
    rates,
    record,
    reference,
    results,
    seeds,
    throughput,
)
from altgrad_core.analysis.words import scope
from altgrad_core.errors import UserError
from altgrad_core.registry.problems import unknown

Builder = Callable[[Findings, Path], Section]

QUESTIONS: dict[str, Builder] = {
    "controls": controls.section,
    "results": results.section,
    "rates": rates.section,
    "throughput": throughput.section,
    "performance": performance.section,
    "benefit": benefit.section,
    "ranks": ranks.section,
    "failures": failures.section,
    "layers": layers.section,
    "properties": properties.section,
    "reference": reference.section,
    "seeds": seeds.section,
    "data": record.data,
    "provenance": record.provenance,
    "repeat": record.repeat,
}
"""Name -> what makes its section, in the order of the report."""

NUMBERS = {
    "q1": "throughput",
    "q2": "performance",
    "q3": "benefit",
    "q4": "ranks",
    "q5": "failures",
    "q6": "layers",
    "q7": "properties",
    "q8": "reference",
}
"""The questions by number."""

_ALWAYS = ("provenance", "repeat")


def build_document(
    found: Findings, folder: Path, questions: Sequence[str] | None = None
) -> Document:
    """The report; ``folder`` is where it will be, which links are relative to.

    ``questions`` selects sections by name or number (``benefit``, ``q3``), in the report's order;
    where the runs come from is always said. Raises ``UserError`` for a name that there is not.
    """
    chosen = QUESTIONS if questions is None else chosen_questions(questions)
    plan = found.suite.plan
    opening: list[Block] = [Paragraph(verdict(found), lead=True), Paragraph(scope(found))]
    if plan is not None and plan.description:
        opening.append(Paragraph(plan.description))
    return Document(
        f"{found.suite.name}: report", opening, [QUESTIONS[name](found, folder) for name in chosen]
    )


def chosen_questions(names: Iterable[str]) -> tuple[str, ...]:
    """The sections of these names or numbers, in the report's order."""
    asked = set(_ALWAYS)
    for given in names:
        name = NUMBERS.get(given.strip().casefold(), given.strip().casefold())
        if name not in QUESTIONS:
            raise UserError(unknown("question", given, [*QUESTIONS, *NUMBERS]))
        asked.add(name)
    return tuple(name for name in QUESTIONS if name in asked)
