"""The page as text: every block, the policy that guards its script, and hostile names."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

from altgrad_core.analysis.document import Cell, Column, Document, Section, Table
from altgrad_core.analysis.html import Live, render_html
from altgrad_core.analysis.html_tables import cell_content, row_header, table_html
from altgrad_core.analysis.markdown import figures_of, render_markdown
from altgrad_core.analysis.svg import series_in, standalone


class Elements(HTMLParser):
    """Every element with its attributes and the text that it begins with."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str], list[str]]] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}, []))
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1][2].append(data)

    def of(self, tag: str) -> list[tuple[dict[str, str], str]]:
        return [(attrs, "".join(text)) for name, attrs, text in self.found if name == tag]


@pytest.fixture
def seen(sample_page: ModuleType) -> Elements:
    return Elements(render_html(sample_page.sample()))


def policy(seen: Elements) -> dict[str, str]:
    (content,) = [a["content"] for a, _ in seen.of("meta") if a.get("http-equiv")]
    return dict(part.strip().split(" ", 1) for part in content.split(";"))


def test_the_policy_admits_this_script_alone_and_no_request(seen: Elements) -> None:
    ((_, script),) = seen.of("script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = policy(seen)
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["connect-src"] == "'none'"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert "eval" not in script
    assert "innerHTML" not in script


def test_a_live_page_may_ask_its_own_server(sample_page: ModuleType) -> None:
    live = Live("<p>banner</p>", "let more = 1;", 'v"1')
    seen = Elements(render_html(sample_page.sample(), live))
    ((_, script),) = seen.of("script")
    assert script.endswith("let more = 1;")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy(seen)["script-src"] == f"'sha256-{digest}'"
    assert policy(seen)["connect-src"] == "'self'"
    assert seen.of("main")[0][0]["data-version"] == 'v"1'
    assert "banner" in [text for _, text in seen.of("p")]


def test_landmarks_headings_and_a_way_around_the_contents(seen: Elements) -> None:
    assert [len(seen.of(tag)) for tag in ("header", "nav", "main", "h1")] == [1, 1, 1, 1]
    links = [(a["href"], text.strip()) for a, text in seen.of("a") if a["href"].startswith("#")]
    assert links == [
        ("#content", "Skip to the report"),
        ("#numbers-sample", "Numbers Sample"),
        ("#lines", "Lines"),
    ]
    ids = [a["id"] for _, a, _ in seen.found if "id" in a]
    assert len(ids) == len(set(ids))
    assert {href[1:] for href, _ in links} <= set(ids)
    for attributes, _ in seen.of("section"):
        assert attributes["aria-labelledby"] in ids


def test_a_heat_map_is_a_table_with_tints(seen: Elements) -> None:
    tinted = [(a, text) for a, text in seen.of("td") if "--tint" in a.get("style", "")]
    plain, two_sided = tinted[:3], tinted[3:]
    # From −0.2 to 0.4: 0.1 lies in the middle.
    assert [(a["style"], text) for a, text in plain] == [
        ("--tint:0.500", "+0.1"),
        ("--tint:0.000", "−0.2"),
        ("--tint:1.000", "+0.4"),
    ]
    assert [(a["class"], a["style"], text) for a, text in two_sided] == [
        ("number more", "--tint:0.250", "+0.1"),
        ("number less", "--tint:0.500", "−0.2"),
        ("number more", "--tint:1.000", "+0.4"),
    ]
    gaps = [text for a, text in seen.of("td") if "empty" in a.get("class", "")]
    assert gaps == ["–", "–"]
    rows = [text for a, text in seen.of("th") if a.get("scope") == "row"]
    assert rows.count("adamw") == rows.count("manifold") - 1 == 2  # and once in the table


def test_there_is_a_hidden_button_for_each_line_of_a_figure(seen: Elements) -> None:
    groups = [a for a, _ in seen.of("div") if a.get("class") == "toggles"]
    assert len(groups) == 2
    assert all("hidden" in a and a["role"] == "group" and a["aria-label"] for a in groups)
    toggles = [a for a, _ in seen.of("button") if "data-toggle" in a]
    assert [a["data-toggle"] for a in toggles] == [
        *("adamw", "manifold", "reference"),
        *("adamw", "manifold"),
    ]
    assert {(a["type"], a["aria-pressed"]) for a in toggles} == {("button", "true")}
    drawn = [a["data-series"] for a, _ in seen.of("g") if a.get("class") == "series"]
    assert set(drawn) == {"adamw", "manifold", "reference"}


def test_parallel_coordinates_have_their_numbers_beside_them(seen: Elements) -> None:
    picks = [(a, text) for a, text in seen.of("button") if a.get("class") == "pick"]
    labels = ["first adamw", "second manifold", "third adamw"]
    assert [text for _, text in picks] == labels
    assert all("disabled" in a for a, _ in picks)  # until the script is there
    assert [a["data-line"] for a, _ in seen.of("tr") if "data-line" in a] == labels
    assert [a["data-line"] for a, _ in seen.of("g") if "data-line" in a] == labels
    summary = next(text for _, text in seen.of("summary"))
    assert summary == "The 3 lines as a table"


def test_regions_that_scroll_are_named_and_reached_by_keys(seen: Elements) -> None:
    regions = [a for a, _ in seen.of("div") if a.get("class") == "scroll"]
    assert len(regions) == 5
    assert all(a["tabindex"] == "0" and a["role"] == "region" for a in regions)
    assert regions[0]["aria-label"] == "table of Name, Score, Text."


def test_only_a_long_name_may_be_broken(seen: Elements) -> None:
    kinds = {text: a.get("class") for a, text in seen.of("th") if a.get("scope") == "row"}
    assert kinds["adamw with a name that takes room"] == "long"
    assert kinds["manifold"] is None


def test_a_long_name_may_be_broken_after_its_underscores_and_not_in_a_link() -> None:
    label = Cell("a_name_<of>_many_parts_<b", href="a_b_c/<d>_e")
    html = row_header(label)
    assert 'href="a_b_c/%3Cd%3E_e"' in html
    assert "a_<wbr>name_<wbr>&lt;of&gt;_<wbr>many_<wbr>parts_<wbr>&lt;b" in html
    assert "<wbr>" not in row_header(Cell("short_name"))


def test_the_contents_name_topics_and_full_titles_where_topics_repeat() -> None:
    titles = ("Benefit: what?", "Layers: which?", "Layers: why?", "Data")
    html = render_html(Document("d", [], [Section(title, []) for title in titles]))
    links = {a["href"]: text for a, text in Elements(html).of("a")}
    assert list(links.values())[1:] == ["Benefit", "Layers: which?", "Layers: why?", "Data"]
    assert links["#benefit-what"] == "Benefit"


def test_long_text_may_be_broken_and_short_text_may_not() -> None:
    row = (
        Cell("a"),
        Cell("no pair yet"),
        Cell("a whole sentence of text"),
        Cell("0.1 to 0.123456789"),
    )
    head = (Column("a"), Column("b"), Column("c"), Column("d", numeric=True))
    cells = Elements(table_html(Table(head, (row,)))).of("td")
    assert [a.get("class") for a, _ in cells] == [None, "text", "number"]


def test_an_address_elsewhere_is_a_link_and_a_name_that_looks_like_code_is_not() -> None:
    cells = [Cell("run", href="https://wandb.ai/a/b/runs/c"), Cell("x", href="javascript:alert(1)")]
    found = [Elements(cell_content(cell)).of("a")[0][0]["href"] for cell in cells]
    assert found == ["https://wandb.ai/a/b/runs/c", "javascript%3Aalert%281%29"]


def test_hostile_names_are_text_everywhere(sample_page: ModuleType) -> None:
    evil = sample_page.EVIL
    document = sample_page.sample((evil, f"2{evil}"), evil, evil)
    html = render_html(document)
    seen = Elements(html)
    assert len(seen.of("script")) == 1
    assert seen.of("img") == []
    assert not any(name.startswith("on") for _, attrs, _ in seen.found for name in attrs)
    assert policy(seen)["script-src"].startswith("'sha256-")
    toggled = [a["data-toggle"] for a, _ in seen.of("button") if "data-toggle" in a]
    assert toggled == [evil, f"2{evil}", "reference", evil, f"2{evil}"]
    assert {a["data-series"] for a, _ in seen.of("g") if a.get("class") == "series"} == set(toggled)
    assert not any(a["href"].startswith(("http", "javascript")) for a, _ in seen.of("a"))
    markdown = render_markdown(document)
    outside = re.sub(r"```sh\n.*?\n```", "", markdown, flags=re.DOTALL)
    assert "<script" not in outside
    assert "<img" not in outside


def test_ids_in_figures_are_made_unique_and_texts_are_left_alone(sample_page: ModuleType) -> None:
    html = render_html(sample_page.sample(('a id="b', "url(#c)"), text=' id="d'))
    assert 'a id="b' in re.sub("&quot;", '"', html)
    assert "curves-0-b" not in html
    assert "url(#c)" in html
    ids = re.findall(r'<[^<>]* id="([^"]*)"', html)
    assert len(ids) == len(set(ids))


def test_markdown_has_the_heat_map_as_a_table_and_the_lines_as_a_picture(
    sample_page: ModuleType,
) -> None:
    document = sample_page.sample()
    text = render_markdown(document)
    assert "|  | adamw | manifold |\n| :-- | --: | --: |\n| adamw | +0.1 | −0.2 |" in text
    assert "![Text](figures/curves.svg)" in text
    assert "![Text](figures/lines.svg)" in text
    drawn = [
        pair for section in document.sections for b in section.blocks for pair in figures_of(b)
    ]
    assert [name for name, _ in drawn] == ["curves", "lines"]
    for _, svg in drawn:
        assert ET.fromstring(standalone(svg)).tag.endswith("svg")
        assert list(series_in(svg)) in (["adamw", "manifold", "reference"], ["adamw", "manifold"])
