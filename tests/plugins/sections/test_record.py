"""Facts about data and where runs come from, as a reader meets them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planted import judged, make_suite, noisy

from altgrad_core.interfaces.blocks import Bullets, Table
from altgrad_core.registry.catalog import catalog


@pytest.mark.parametrize(
    ("tasks", "rows"),
    [(("one",), ["documents"]), (("one", "two"), ["one: documents", "two: documents"])],
)
def test_a_single_task_is_not_named_in_every_row(tasks: tuple[str, ...], rows: list[str]) -> None:
    found = replace(judged(make_suite(noisy({}, 0.01))), facts={t: {"documents": 7} for t in tasks})
    (table,) = catalog().build("section", "data").build(found)
    assert isinstance(table, Table)
    assert [row[0].text for row in table.rows] == rows


@pytest.mark.parametrize(
    ("data", "shown"),
    [("pypi:a-package-of-texts==32.1.0, parser 1", None), ("00ff" * 16, "00ff" * 6)],
)
def test_digests_are_cut_and_versions_are_not(data: str, shown: str | None) -> None:
    found = judged(make_suite(noisy({}, 0.01), change=lambda *_: {"data": data}))
    told = catalog().build("section", "provenance").build(found)[0]
    assert isinstance(told, Bullets)
    assert f"Data of all runs: sha256 {shown or data}" in told.items
