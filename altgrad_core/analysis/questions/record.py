"""What the runs were trained on, where each comes from, and how to repeat them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from altgrad_core.analysis.document import Code, Paragraph, Section, Table, columns
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.numbers import significant
from altgrad_core.analysis.provenance import fact_tables, provenance_row


def data(found: Findings, folder: Path) -> Section:
    """Facts about the data, as the runs recorded them."""
    facts = [run.facts.get("data", run.facts) for run in found.runs if run.facts]
    tables = fact_tables([one for one in facts if isinstance(one, Mapping)])
    if not tables:
        return Section("Data", [Paragraph("No run has recorded facts about its data yet.")])
    return Section("Data", [*tables])


def provenance(found: Findings, folder: Path) -> Section:
    """One row per run."""
    rows = tuple(provenance_row(run, folder) for run in found.runs)
    if not rows:
        return Section("Provenance", [Paragraph("There are no run directories yet.")])
    head = columns(
        *("Run", "Condition", "Seed", "Time (s)", "Device", "Versions", "Git", "Data"),
        numbers=("Seed", "Time (s)"),
    )
    total = float(found.planned["seconds"].sum())
    return Section("Provenance", [Table(head, rows, f"{significant(total)} seconds in all.")])


def repeat(found: Findings, folder: Path) -> Section:
    """The command."""
    plan = found.suite.plan
    if plan is None or not plan.command:
        return Section("How to repeat", [Paragraph("No plan.json with the command was kept.")])
    text = (
        "The same command resumes an unfinished suite: it runs only what is missing. Each run's "
        "directory has its whole settings in spec.yaml."
    )
    return Section("How to repeat", [Code(plan.command), Paragraph(text)])
