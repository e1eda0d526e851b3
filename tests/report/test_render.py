"""Markdown and HTML show every text as it is, whatever is in it, and leave out what says nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from altgrad_core.interfaces.blocks import Cell, Code, Paragraph, Table, table
from altgrad_core.report.document import Document, Part
from altgrad_core.report.render import address, markdown_text, render_html, render_markdown

HERE = Path("report")


class Words(HTMLParser):
    """The text of a page's main part, and the elements that are in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


def inline(text: str) -> str:
    """What a reader of the Markdown sees, code spans in backticks."""
    (token,) = [token for token in parsed(text) if token.type == "inline"]
    marks = {"code_inline": "`"}
    assert {t.type for t in token.children or ()} <= {"text", "text_special", "code_inline"}
    return "".join(
        f"{marks.get(t.type, '')}{t.content}{marks.get(t.type, '')}" for t in token.children or ()
    )


@pytest.mark.parametrize(
    "text",
    [
        *("e5m2_manifold_adamw", "_private_ and __dunder__", "*a* **b**", "a ~~b~~ ~c~"),
        *(
            "[l](http://e) ![i](x)",
            "<b>&amp;</b> &copy;",
            "$x$",
            "back\\slash \\* \\",
            "`",
            "a ` b",
        ),
        *("# no heading", "1. no list", "2) no list", "- no list", "+ no list", "+0.01", "> quote"),
        *(
            "---",
            "===",
            "#1 of 3",
            "a | b",
            "run `altgrad-bench report a_b_c` now",
            "`a*b` and `c_d`",
        ),
        *("1986. A year", "* star", "http://x.y/a_b_c", "__a", "a__", "<http://x.y>", "_"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    assert inline(markdown_text(text)) == text


def test_code_spans_have_no_backslashes_and_words_few() -> None:
    assert markdown_text("set `runs/a_b` of e5m2_adamw") == "set `runs/a_b` of e5m2_adamw"


def test_a_markdown_table_keeps_its_shape_with_hostile_texts(sample_document: ModuleType) -> None:
    evil = sample_document.EVIL
    text = render_markdown(sample_document.sample((evil, f"2{evil}"), evil, evil), HERE)
    assert "\\_" not in "".join(re.findall("`[^`]*`", text))
    tokens = parsed(text)
    rows = [t for t in tokens if t.type == "tr_open"]
    heads = [t for t in tokens if t.type == "th_open"]
    cells_ = [t for t in tokens if t.type == "td_open"]
    assert (len(rows), len(heads), len(cells_)) == (5, 3, 12)
    assert [t.tag for t in tokens if t.type == "heading_open"] == ["h1", "h2", "h2"]
    html = MarkdownIt("commonmark").enable("table").render(text)
    page = Words(html)
    assert "script" not in page.tags
    assert "window.pwned=1" in page.text
    assert page.tags.count("img") == 5  # the charts alone
    assert page.text.count("{{ 7 * 7 }}") > 5


def test_html_is_text_whatever_it_says(sample_document: ModuleType) -> None:
    evil = sample_document.EVIL
    page = render_html(sample_document.sample((evil, f"2{evil}"), evil, evil), HERE)
    body = page[page.index("<body") : page.rindex("<script>")]
    found = Words(body)
    assert found.tags.count("script") == 5  # the data of the charts
    assert "img" not in found.tags
    assert "onerror" not in re.sub('"[^"]*"|>[^<]*<', "", body)
    assert evil.replace("`a|b`", "a|b") in found.text.replace("\n", " ")
    for data in re.findall('<script type="application/json">(.*?)</script>', body, re.S):
        assert json.loads(data)["datasets"]


def test_the_one_script_is_admitted_and_nothing_else(sample_document: ModuleType) -> None:
    page = render_html(sample_document.sample(), HERE)
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert re.search("script-src 'sha256-[A-Za-z0-9+/=]{44}'", policy)
    assert page.count("<script>") == 1
    assert not re.findall('(?:src=|<link[^>]*href=)"(?:https?:)?//', page)


def test_a_page_without_charts_is_small() -> None:
    page = render_html(Document("Title", (Paragraph("Text."),), ()), HERE)
    assert len(page) < 30_000


def test_columns_that_say_nothing_are_left_out() -> None:
    names = ("Name", "Never", "Dash", "Once")
    rows = [
        dict(zip(names, texts, strict=True)) for texts in (("", "", "–", ""), ("", " ", "", "0"))
    ]
    made = table(rows, [(name, name) for name in names])
    document = Document("T", (), (Part("P", (made,)),))
    text = render_markdown(document, HERE)
    assert "| Name | Once |" in text
    assert "Never" not in text
    assert "Dash" not in text
    assert "Dash" not in render_html(document, HERE)
    empty = Document("T", (), (Part("P", (Table(made.columns, ()),)),))
    assert "| Name | Never | Dash | Once |" in render_markdown(empty, HERE)


def test_a_fence_is_longer_than_those_inside() -> None:
    text = render_markdown(Document("T", (Code("a ``` b\n````\n"),), ()), HERE)
    (token,) = [t for t in parsed(text) if t.type == "fence"]
    assert token.content == "a ``` b\n````\n\n"


def test_addresses_lead_from_the_report_to_runs(tmp_path: Path) -> None:
    (tmp_path / "runs" / "toy" / "0a b").mkdir(parents=True)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a.csv").touch()
    run = str(tmp_path / "runs" / "toy" / "0a b")
    assert address(Cell("x", href=run), folder) == "../runs/toy/0a%20b/"
    assert address(Cell("x", href=str(folder / "a.csv")), folder) == "a.csv"
    assert address(Cell("x", href="https://h.x/a b?c=1#d"), folder) == "https://h.x/a%20b?c=1#d"
    assert address(Cell("x", href=str(tmp_path / "results.zip" / "0ab")), folder) is None
    assert address(Cell("x"), folder) is None
    assert address(Cell("x", href=""), folder) is None


@pytest.mark.parametrize("href", ["javascript:alert(1)", "data:text,x", 'a"b><c', "a)b"])
def test_an_address_is_a_file_or_of_the_web(
    href: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert address(Cell("x", href=href), HERE) is None
    Path(href).touch()
    found = address(Cell("x", href=href), HERE)
    assert found is not None
    assert re.fullmatch(r"\.\./[\w.%-]+", found)
