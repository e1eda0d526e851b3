"""The checks that every section of a report must pass, built in or not. Needs no pytest."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pandas as pd

from altgrad_core.interfaces.blocks import Bullets, Chart, Code, Paragraph, Table
from altgrad_core.interfaces.section import Findings, Section
from altgrad_core.report.build import drawn
from altgrad_core.report.document import Document, Part
from altgrad_core.report.render import render_html, render_markdown


def check_section(section: Section, *findings: Findings) -> None:
    """Raise ``AssertionError``, saying what is wrong, unless ``section`` is a good section.

    For each of the ``findings`` it must return blocks, the same ones when asked again, whose charts
    can be drawn and have names of their own, and leave every table as it was.
    """
    if not isinstance(section, Section):
        raise AssertionError(f"{section!r} is not a Section")
    if not section.title.strip():
        raise AssertionError(f"{section!r} has no title")
    for found in findings:
        before = {name: table.copy(deep=True) for name, table in _tables(found)}
        blocks = tuple(section.build(found))
        for block in blocks:
            kinds = Table | Paragraph | Bullets | Code | Chart
            if not isinstance(block, kinds):
                raise AssertionError(f"{block!r} is no block of a report")
        for name, table in _tables(found):
            if not table.equals(before[name]):  # a hundred times as fast as what says where
                pd.testing.assert_frame_equal(table, before[name], obj=f"the table {name}")
                raise AssertionError(f"the table {name} was changed")
        document = Document("Check", (), (Part(section.title, blocks),))
        names = [chart.name for chart in document.charts]
        if len(set(names)) != len(names):
            raise AssertionError(f"two charts have one name: {names}")
        shown, pictures = drawn(document)
        if len(pictures) != len(names):
            raise AssertionError(f"a chart cannot be drawn: {shown.parts[0].blocks}")
        again = Document("Check", (), (Part(section.title, tuple(section.build(found))),))
        here = Path()
        text = render_markdown(document, here)
        if text != render_markdown(again, here):
            raise AssertionError("it says something else when asked again")
        render_html(document, here, pictures)


def _tables(found: Findings) -> list[tuple[str, pd.DataFrame]]:
    values = [(field.name, getattr(found, field.name)) for field in fields(found)]
    return [(name, value) for name, value in values if isinstance(value, pd.DataFrame)]
