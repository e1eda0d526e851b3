"""The main table, and what a reader must know to read it."""

from __future__ import annotations

from pathlib import Path

from altgrad_core.analysis.document import Block, Bullets, Section
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.tables import main_table
from altgrad_core.analysis.words import notes


def section(found: Findings, folder: Path) -> Section:
    """One row per condition."""
    blocks: list[Block] = [main_table(found, folder)]
    if said := notes(found):
        blocks.append(Bullets(said))
    return Section("Results", blocks)
