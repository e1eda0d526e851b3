"""The page in a real browser: no complaints, no requests, charts that answer, phones, dark mode, paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from altgrad_core.report.build import drawn
from altgrad_core.report.render import render_html

pytestmark = pytest.mark.slow

# Contrast of two colours by the formula of WCAG 2.1, and the background that an element stands on.
CONTRAST = """
const rgb = (text) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d");
  pen.fillStyle = text;
  pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data];
};
const light = (text) => {
  const [r, g, b] = rgb(text).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const found = getComputedStyle(e).backgroundColor;
    if (rgb(found)[3] === 255) return found;
  }
  return "white";
};
const ink = (element) => contrast(getComputedStyle(element).color, behind(element));
"""


@pytest.fixture(scope="module")
def page(
    sample_document: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """The file of the sample with those names: drawing its charts takes longer than most tests."""

    @cache
    def made(*names: Any) -> Path:
        folder = tmp_path_factory.mktemp("page")
        document, pictures = drawn(sample_document.sample(*names))
        file = folder / "page.html"
        file.write_text(render_html(document, folder, pictures), encoding="utf-8")
        return file

    return made


@pytest.fixture
def open_page(chromium: Any, page: Callable[..., Path]) -> Iterator[Callable[..., Any]]:
    """Opens the sample from the disk in a tab of its own, which is closed at the end."""
    tabs = []

    def open_(
        *names: Any,
        width: int = 1280,
        dark: bool = False,
        scripts: bool = True,
        paper: bool = False,
    ) -> Any:
        tab = chromium.Tab(chromium.running)
        tabs.append(tab)
        tab.emulate(width=width, dark=dark)
        if paper:
            dark_mode = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            tab.call("Emulation.setEmulatedMedia", media="print", features=dark_mode)
        tab.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        tab.open(page(*names).as_uri())
        if scripts:
            tab.wait("document.documentElement.dataset.drawn === 'yes'", 60)
        return tab

    yield open_
    for tab in tabs:
        tab.close()


def shown(tab: Any, selector: str) -> list[bool]:
    """Whether each element that ``selector`` finds takes part in the picture."""
    found: list[bool] = tab.run(
        f"[...document.querySelectorAll({selector!r})].map((e) => e.getClientRects().length > 0)"
    )
    return found


def lines(tab: Any, figure: str = "curves", colour: str = "#d55e00") -> int:
    """How many lines of that colour a chart has, its legend not counted."""
    strokes = f"[data-figure={figure}] .mark-line.role-mark path[stroke='{colour}']"
    return int(tab.run(f"document.querySelectorAll({strokes!r}).length"))


def test_it_opens_from_the_disk_without_complaint_or_request(open_page: Callable[..., Any]) -> None:
    tab = open_page()
    assert tab.complaints() == []
    assert {address.partition(":")[0] for address in tab.requests()} <= {"file", "data"}
    assert shown(tab, ".chart svg") == [True] * 5
    assert shown(tab, ".chart img") == []


def test_a_line_is_switched_off_and_on_with_the_keyboard(open_page: Callable[..., Any]) -> None:
    tab = open_page()
    boxes = "[data-figure=curves] .toggles input"
    names = f"[...document.querySelectorAll({boxes!r})].map((b) => b.closest('label').textContent)"
    assert tab.run(names) == ["adamw", "manifold"]
    before = lines(tab), lines(tab, colour="#0072b2")
    assert before == (6, 6)  # two seeds and their mean, in two panels
    tab.run(f"document.querySelectorAll({boxes!r})[0].focus()")
    tab.press("Tab", 9)
    tab.press(" ", 32, " ")
    tab.wait("document.activeElement.checked === false")
    tab.wait("!document.querySelector(\"[data-figure=curves] .role-mark path[stroke='#d55e00']\")")
    assert lines(tab, colour="#0072b2") == 6
    tab.press(" ", 32, " ")
    tab.wait("document.activeElement.checked === true")
    tab.wait("!!document.querySelector(\"[data-figure=curves] .role-mark path[stroke='#d55e00']\")")
    assert (lines(tab), lines(tab, colour="#0072b2")) == before


def test_what_was_switched_off_stays_off_in_another_width(open_page: Callable[..., Any]) -> None:
    tab = open_page()
    tab.run("document.querySelectorAll('[data-figure=curves] .toggles input')[1].click()")
    tab.emulate(width=390)
    tab.wait("document.querySelector('[data-figure=curves]').dataset.width < 400")
    tab.wait("document.querySelectorAll('[data-figure=curves] .toggles input').length === 2")
    assert tab.run(
        "[...document.querySelectorAll('[data-figure=curves] .toggles input')].map((b) => b.checked)"
    ) == [True, False]
    assert (lines(tab), lines(tab, colour="#0072b2")) == (0, 6)


def test_pointing_at_a_mark_tells_its_values(open_page: Callable[..., Any]) -> None:
    tab = open_page()
    tab.run("document.querySelector('[data-figure=speed]').scrollIntoView({behavior: 'instant'})")
    x, y = tab.run(
        "(() => { const r = document.querySelector('[data-figure=speed] .mark-rect.role-mark path')"
        ".getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    tab.move(x, y)
    tab.wait("!!document.querySelector('#vg-tooltip-element.visible')")
    told = tab.run("document.querySelector('#vg-tooltip-element').textContent")
    assert "adamw group" in told
    assert "3" in told


def test_a_column_sorts_by_number_with_gaps_last_and_back(open_page: Callable[..., Any]) -> None:
    tab = open_page()
    column = "[...document.querySelectorAll('main table')[0].tBodies[0].rows].map((r) => r.cells[{}].textContent)"
    original = tab.run(column.format(1))
    assert original == ["0.5 ± 0.1", "−0.25", "–", "+2"]
    click = "document.querySelectorAll('main table')[0].querySelectorAll('.sort')[{}].click()"
    order = "document.querySelectorAll('main th')[{}].ariaSort"
    tab.run(click.format(1))
    assert tab.run(column.format(1)) == ["+2", "0.5 ± 0.1", "−0.25", "–"]
    assert tab.run(order.format(1)) == "descending"
    tab.run(click.format(1))
    assert tab.run(column.format(1)) == ["−0.25", "0.5 ± 0.1", "+2", "–"]
    assert tab.run(order.format(1)) == "ascending"
    tab.run(click.format(1))
    assert tab.run(column.format(1)) == original
    assert tab.run(order.format(1)) is None
    tab.run(click.format(2))
    assert tab.run(column.format(2))[:3] == ["a9", "a10", "b"]  # text with numbers, as people count


def test_the_page_is_whole_without_scripts(open_page: Callable[..., Any]) -> None:
    tab = open_page(scripts=False)
    assert shown(tab, ".toggles, .sort") == [False] * 5
    assert shown(tab, ".chart img") == [True] * 5
    sizes = tab.run("[...document.querySelectorAll('.chart img')].map((i) => i.naturalWidth)")
    assert min(sizes) > 200
    assert all(shown(tab, "main table"))


@pytest.mark.parametrize("width", [320, 390, 768])
@pytest.mark.parametrize("kind", ["plain", "unbroken"])
def test_a_narrow_screen_never_scrolls_sideways(
    open_page: Callable[..., Any], width: int, kind: str
) -> None:
    names = {"plain": (), "unbroken": (("x" * 90, "y" * 90), "z" * 200, "w" * 300)}[kind]
    tab = open_page(*names, width=width)
    assert tab.run("document.documentElement.scrollWidth") <= width
    wide = tab.run(
        "[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, pre, .chart') &&"
        f" e.getBoundingClientRect().right > {width} + 0.5).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    # What does not fit can be reached: its region scrolls.
    assert tab.run(
        "[...document.querySelectorAll('.scroll, .chart')].every((e) =>"
        " e.scrollWidth <= e.clientWidth || getComputedStyle(e).overflowX === 'auto')"
    )


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_lines_stand_out_in_light_and_dark(
    open_page: Callable[..., Any], dark: bool
) -> None:
    tab = open_page(dark=dark)
    page = tab.run(f"(() => {{ {CONTRAST} return light(behind(document.body)); }})()")
    assert page < 0.05 if dark else page > 0.9
    low = tab.run(
        f"(() => {{ {CONTRAST} return [...document.querySelectorAll('p, li, th, td, a, button, "
        "figcaption, code, label, h1, h2')].filter((e) => e.getClientRects().length)"
        ".map((e) => [ink(e), e.outerHTML.slice(0, 60)]).filter(([c]) => c < 4.5); })()"
    )
    assert low == []
    texts = tab.run(
        f"(() => {{ {CONTRAST} const page = behind(document.body); return [...document"
        ".querySelectorAll('.chart svg text')].map((e) => contrast(getComputedStyle(e).fill, page)); })()"
    )
    assert len(texts) > 40
    assert min(texts) >= 4.5
    drawn_lines = tab.run(
        f"(() => {{ {CONTRAST} const page = behind(document.body); return [...document"
        ".querySelectorAll('.mark-line.role-mark path, .mark-symbol.role-legend-symbol path')]"
        ".map((e) => getComputedStyle(e)).map((s) => s.stroke === 'none' ? s.fill : s.stroke)"
        ".map((colour) => contrast(colour, page)); })()"
    )
    assert len(drawn_lines) > 10
    assert min(drawn_lines) >= 3.0


def test_paper_is_light_without_buttons(open_page: Callable[..., Any]) -> None:
    tab = open_page(dark=True, paper=True)
    assert not any(shown(tab, "nav, .toggles, .skip"))
    dark_ink = tab.run(
        f"(() => {{ {CONTRAST} return light(getComputedStyle(document.body).color); }})()"
    )
    assert dark_ink < 0.05
    assert tab.run("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"


def test_the_first_stop_of_the_keyboard_skips_to_the_report(open_page: Callable[..., Any]) -> None:
    tab = open_page()
    left = "document.querySelector('.skip').getBoundingClientRect().right"
    assert tab.run(left) < 0
    tab.press("Tab", 9)
    assert tab.run("document.activeElement.className") == "skip"
    assert tab.run(left) > 0
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.press("Enter", 13, "\r")
    assert tab.run("document.activeElement.id") == "content"


def test_every_control_is_reached_with_the_keyboard(open_page: Callable[..., Any]) -> None:
    tab = open_page()
    seen = set()
    for _ in range(60):
        tab.press("Tab", 9)
        seen.add(tab.run("document.activeElement.tagName + document.activeElement.className"))
    assert {"Askip", "DIVscroll", "DIVchart", "BUTTONsort", "INPUT", "PRE"} <= seen


def test_hostile_names_run_nothing(
    open_page: Callable[..., Any], sample_document: ModuleType
) -> None:
    evil = sample_document.EVIL
    tab = open_page((evil, f"2{evil}"), evil, evil)
    for selector in (".toggles input", ".sort"):
        tab.run(f"document.querySelectorAll({selector!r}).forEach((b) => b.click())")
    for figure in ("speed", "points", "tints", "forest"):
        tab.run(f"document.querySelector('[data-figure={figure}]').scrollIntoView()")
        x, y = tab.run(
            f"(() => {{ const r = document.querySelector('[data-figure={figure}] .role-mark path')"
            ".getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        tab.move(x, y)
        tab.browser.settle(0.2)
    assert tab.run("window.pwned") is None
    assert tab.complaints() == []
    assert {address.partition(":")[0] for address in tab.requests()} <= {"file", "data"}
    assert tab.run("document.querySelectorAll('main img, main script:not([type])').length") == 0
    assert tab.run("document.querySelector('h1').textContent") == evil.replace("`", "")
    assert (lines(tab), lines(tab, colour="#0072b2")) == (0, 0)


def test_the_policy_stops_a_script_that_got_in(open_page: Callable[..., Any]) -> None:
    tab = open_page()
    tab.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.pwned=1\">');"
        "const s = document.createElement('script'); s.textContent = 'window.pwned=2';"
        "document.body.append(s)"
    )
    assert len(tab.complaints()) >= 2  # the browser reports what it refused
    assert tab.run("window.pwned") is None
