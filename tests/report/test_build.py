"""From findings and sections to the files of a report."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from altgrad_core.errors import UserError
from altgrad_core.interfaces.blocks import Block, Bullets, Chart, Paragraph
from altgrad_core.interfaces.plugin import Need, Offer, hookimpl
from altgrad_core.interfaces.section import Findings, Section
from altgrad_core.registry.catalog import Catalog
from altgrad_core.report.build import build_document, drawn, write_report
from altgrad_core.report.document import Document
from altgrad_core.testing.sections import check_section

SPEC = {
    "data": {"values": [{"x": 1}]},
    "mark": "bar",
    "encoding": {"x": {"field": "x", "type": "quantitative"}},
    "config": {},
}


@pytest.fixture(scope="module")
def findings() -> ModuleType:
    """The module ``findings.py`` beside this one."""
    place = Path(__file__).with_name("findings.py")
    spec = importlib.util.spec_from_file_location("report_findings", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Says(Section):
    """A section that returns what it was given, or raises it."""

    title = "Says"
    answer: Any = ()

    def __init__(self, settings: object) -> None:
        self.settings = settings

    def build(self, found: Findings) -> Sequence[Block]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return tuple(self.answer)


class First(Says):
    title = "First: what is first?"
    answer = (Paragraph("one"), Chart("picture", "A picture.", SPEC))


class Second(Says):
    title = "Second"
    answer = KeyError("odd_name")


class Third(Says):
    title = "Third"


class Last(Says):
    title = "Last"
    always = True
    answer = (Bullets(("four",)), Chart("picture", "Another of that name.", SPEC))


def plugins(*offers: Offer) -> Catalog:
    here = SimpleNamespace()
    for section in (First, Second, Third, Last):
        setattr(here, section.__name__, section)
    import sys

    sys.modules["sections_of_the_tests"] = here  # type: ignore[assignment]

    def altgrad_sections() -> Sequence[Offer]:
        target = "sections_of_the_tests:"
        return offers or (
            Offer("last", "the last one", f"{target}Last", order=90),
            Offer("second", "the second one", f"{target}Second", order=20, label="q2"),
            Offer("first", "the first one", f"{target}First", order=10, label="q1"),
            Offer("third", "the third one", f"{target}Third", order=30),
            Offer("far", "another", f"{target}First", order=95, needs=(Need("module", "no_such"),)),
        )

    return Catalog.from_modules(SimpleNamespace(altgrad_sections=hookimpl(altgrad_sections)))


def said(document: Document) -> dict[str, list[str]]:
    return {
        part.title: [block.text for block in part.blocks if isinstance(block, Paragraph)]
        for part in document.parts
    }


def test_sections_stand_in_their_order_and_one_without_blocks_is_left_out(
    findings: ModuleType,
) -> None:
    document = build_document(findings.made(), plugins=plugins())
    assert [part.title for part in document.parts] == [
        *("First: what is first?", "Second", "Last", "another"),
    ]


def test_the_verdict_opens_the_report(findings: ModuleType) -> None:
    found = findings.made(description="A toy.", notes=("Read from W&B.",))
    opening = build_document(found, plugins=plugins()).opening
    assert opening == (
        Paragraph("Nothing is shown.", lead=True),
        Bullets(("Seeds are few.",)),
        Paragraph("A toy."),
        Bullets(("Read from W&B.",)),
    )


def test_an_exploratory_answer_says_so_where_it_is_read(findings: ModuleType) -> None:
    sentences = ("Exploratory, not confirmatory: the margin changed.", "Nothing is shown.", "More.")
    found = findings.made(exploratory=("the margin changed",), verdict=sentences)
    opening = build_document(found, plugins=plugins()).opening
    assert opening == (Paragraph(" ".join(sentences[:2]), lead=True), Bullets(("More.",)))


def test_a_section_that_raises_is_named_in_its_place_and_stops_nothing(
    findings: ModuleType,
) -> None:
    texts = said(build_document(findings.made(), plugins=plugins()))
    assert texts["Second"] == ["The section second of tests 0 failed: KeyError: 'odd_name'"]
    assert texts["First: what is first?"] == ["one"]
    assert texts["another"][0].startswith("The section far of tests 0 failed: ")
    assert "no_such" in texts["another"][0]


def test_two_charts_of_one_name_do_not_overwrite_each_other(findings: ModuleType) -> None:
    document = build_document(findings.made(), plugins=plugins())
    assert [chart.name for chart in document.charts] == ["picture"]
    assert "a chart is called 'picture'" in said(document)["Last"][0]


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "a b"])
def test_a_charts_name_is_that_of_a_file(
    findings: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(First, "answer", (Chart(name, "C.", SPEC),))
    document = build_document(findings.made(), plugins=plugins())
    assert not [chart for chart in document.charts if chart.name == name]


def test_questions_are_chosen_by_name_or_number(findings: ModuleType) -> None:
    for names in (["q1"], ["first"], [" First "]):
        document = build_document(findings.made(), names, plugins())
        assert [part.title for part in document.parts] == ["First: what is first?", "Last"]
    with pytest.raises(UserError, match=r"unknown question 'frist'\. Did you mean 'first'"):
        build_document(findings.made(), ["frist"], plugins())


def test_a_chart_that_cannot_be_drawn_is_said_in_its_place(
    findings: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Chart("wrong", "W.", SPEC | {"mark": {"type": "no such mark"}})
    monkeypatch.setattr(First, "answer", (wrong, Paragraph("after")))
    document, pictures = drawn(build_document(findings.made(), plugins=plugins()))
    assert list(pictures) == ["picture"]  # that of the last section
    assert said(document)["First: what is first?"][0].startswith(
        "The chart wrong could not be drawn"
    )
    assert said(document)["First: what is first?"][1] == "after"


def test_the_files(findings: ModuleType, tmp_path: Path) -> None:
    effects = pd.DataFrame({"group": ["e5m2", "a,b"], "gain": [0.1 + 0.2, 1e-17]})
    runs = pd.DataFrame({"id": ["0a"], "seed": [1]})
    formats = pd.DataFrame({"bits": [8]}, index=pd.Index(["e5m2"], name="format"))
    found = findings.made(effects=effects, runs=runs, formats=formats)
    files = write_report(found, tmp_path / "report", plugins=plugins())
    folder = tmp_path / "report"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *("report.md", "report.html", "figures/picture.svg"),
        *("effects.csv", "effects.parquet", "runs.parquet", "formats.parquet"),
    }
    pd.testing.assert_frame_equal(pd.read_csv(folder / "effects.csv"), effects)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "effects.parquet"), effects)
    assert list(pd.read_parquet(folder / "formats.parquet")["format"]) == ["e5m2"]
    page = files.html.read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml;base64,") == 1
    assert "![A picture](figures/picture.svg)" in files.markdown.read_text(encoding="utf-8")


def test_no_room_is_the_users_to_know(findings: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file")
    with pytest.raises(UserError, match="cannot be written to"):
        write_report(findings.made(), tmp_path / "report", plugins=plugins())


def test_what_a_good_section_is(findings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    check_section(First(None), findings.made())
    with pytest.raises(KeyError):
        check_section(Second(None), findings.made())
    monkeypatch.setattr(Third, "answer", ("text",))
    with pytest.raises(AssertionError, match="no block"):
        check_section(Third(None), findings.made())
    monkeypatch.setattr(Third, "answer", (Chart("c", "C.", SPEC | {"mark": "no such"}),))
    with pytest.raises(AssertionError, match="cannot be drawn"):
        check_section(Third(None), findings.made())

    class Meddler(First):
        def build(self, found: Findings) -> Sequence[Block]:
            found.runs["new"] = 1
            return ()

    with pytest.raises(AssertionError, match="the table runs"):
        check_section(Meddler(None), findings.made(runs=pd.DataFrame({"id": ["0a"]})))
