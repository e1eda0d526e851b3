"""The report's content, section by section. What is not there is said, not left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from altgrad_core.analysis.document import (
    Block,
    Bullets,
    Cell,
    Code,
    Document,
    Figure,
    Paragraph,
    Section,
    Table,
    cells,
    columns,
)
from altgrad_core.analysis.figures import (
    delta_figure,
    loss_figure,
    throughput_figure,
    validation_figure,
)
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.numbers import NONE, significant
from altgrad_core.analysis.provenance import directory_link, fact_tables, provenance_row
from altgrad_core.analysis.tables import delta_table, main_table, status_cell
from altgrad_core.analysis.words import lead, notes

_MOST_EVENTS = 50
"""Kinds of event shown; the rest is counted."""


def build_document(found: Findings, folder: Path) -> Document:
    """The whole report; ``folder`` is where it will be, which links are relative to."""
    plan = found.suite.plan
    opening: list[Block] = [Paragraph(lead(found), lead=True)]
    if plan is not None and plan.description:
        opening.append(Paragraph(plan.description))
    return Document(
        f"{found.suite.name}: report",
        opening,
        [
            _results(found),
            _differences(found),
            _curves(found),
            _throughput(found),
            _failures(found, folder),
            _data(found),
            _provenance(found, folder),
            _repeat(found),
        ],
    )


def _results(found: Findings) -> Section:
    blocks: list[Block] = [main_table(found)]
    if said := notes(found):
        blocks.append(Bullets(said))
    return Section("Results", blocks)


def _differences(found: Findings) -> Section:
    contrast = found.contrast
    if contrast is None:
        return Section("Differences", [Paragraph("The suite declares no contrast.")])
    title = f"Differences: {contrast.treatment} − {contrast.baseline}"
    if not found.deltas:
        text = f"No group of the suite has both values of {contrast.axis}: there is no difference."
        return Section(title, [Paragraph(text)])
    blocks: list[Block] = [delta_table(found), *_present(delta_figure(found))]
    missing = [
        f"{delta.group}: no pair yet for {_seeds(delta.missing)}."
        for delta in found.deltas
        if delta.missing
    ]
    return Section(title, [*blocks, Bullets(tuple(missing))] if missing else blocks)


def _seeds(seeds: Iterable[int]) -> str:
    numbers = [str(seed) for seed in seeds]
    return f"{'seed' if len(numbers) == 1 else 'seeds'} {', '.join(numbers)}"


def _curves(found: Findings) -> Section:
    drawn = [*_present(validation_figure(found)), *_present(loss_figure(found))]
    return Section("Curves", drawn or [Paragraph("No run has logged a loss or an evaluation yet.")])


def _throughput(found: Findings) -> Section:
    drawn = _present(throughput_figure(found))
    return Section("Throughput", drawn or [Paragraph("No run has measured its throughput yet.")])


def _present(figure: Figure | None) -> list[Block]:
    return [figure] if figure is not None else []


def _failures(found: Findings, folder: Path) -> Section:
    planned = found.planned
    wrong = planned[(planned["status"] != "ok") | (planned["message"] != "")]
    blocks: list[Block] = []
    if wrong.empty:
        blocks.append(Paragraph("Every planned run went to its end."))
    else:
        head = columns(
            *("Condition", "Seed", "Status", "Step", "What happened"), numbers=("Seed", "Step")
        )
        rows = tuple(
            (
                _linked(row["condition"], row["directory"], folder),
                Cell(str(row["seed"])),
                status_cell(row["status"]),
                Cell(f"{row['step']} of {row['max_steps']}" if row["max_steps"] else NONE),
                Cell(row["message"] or NONE),
            )
            for _, row in wrong.iterrows()
        )
        blocks.append(Table(head, rows))
    return Section("Failures and events", [*blocks, *_events(found)])


def _events(found: Findings) -> list[Block]:
    """Events by run, kind and layer, in the plan's order: how often, and the first in full."""
    groups: dict[tuple[str, int, str, str], list[tuple[int, str]]] = {}
    for run in found.runs:
        for event in run.history.events:
            if event.kind != run.status.status:  # the end of the run is in the table above
                key = (run.spec.condition, run.spec.seed, event.kind, event.layer)
                groups.setdefault(key, []).append((event.step, event.message))
    if not groups:
        return [Paragraph("No monitor reported an event.")]
    head = columns(
        *("Condition", "Seed", "Event", "Layer", "Times", "First at step", "Message"),
        numbers=("Seed", "Times", "First at step"),
    )
    rows = [
        cells(condition, str(seed), kind, layer, str(len(seen)), str(seen[0][0]), seen[0][1])
        for (condition, seed, kind, layer), seen in groups.items()
    ]
    blocks: list[Block] = [Table(head, tuple(rows[:_MOST_EVENTS]))]
    if len(rows) > _MOST_EVENTS:
        more = len(rows) - _MOST_EVENTS
        blocks.append(Paragraph(f"{more} more are in the runs' metrics.jsonl."))
    return blocks


def _data(found: Findings) -> Section:
    facts = [run.facts.get("data", run.facts) for run in found.runs if run.facts]
    tables = fact_tables([one for one in facts if isinstance(one, Mapping)])
    if not tables:
        return Section("Data", [Paragraph("No run has recorded facts about its data yet.")])
    return Section("Data", [*tables])


def _provenance(found: Findings, folder: Path) -> Section:
    rows = tuple(provenance_row(run, folder) for run in found.runs)
    if not rows:
        return Section("Provenance", [Paragraph("There are no run directories yet.")])
    head = columns(
        *("Run", "Condition", "Seed", "Time (s)", "Device", "Versions", "Git", "Data"),
        numbers=("Seed", "Time (s)"),
    )
    total = float(found.planned["seconds"].sum())
    return Section("Provenance", [Table(head, rows, f"{significant(total)} seconds in all.")])


def _repeat(found: Findings) -> Section:
    plan = found.suite.plan
    if plan is None or not plan.command:
        return Section("How to repeat", [Paragraph("No plan.json with the command was kept.")])
    text = (
        "The same command resumes an unfinished suite: it runs only what is missing. Each run's "
        "directory has its whole settings in spec.yaml."
    )
    return Section("How to repeat", [Code(plan.command), Paragraph(text)])


def _linked(text: str, directory: str, folder: Path) -> Cell:
    return Cell(text, href=directory_link(Path(directory), folder) if directory else None)
