"""The page in a real browser: no complaints, no requests, buttons that work, phones, dark mode, paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from altgrad_core.analysis.html import render_html

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


@pytest.fixture
def open_page(chromium: Any, sample_page: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    """Opens the sample from the disk in a tab of its own."""

    def open_(
        *names: Any,
        width: int = 1280,
        dark: bool = False,
        scripts: bool = True,
        paper: bool = False,
    ) -> Any:
        file = tmp_path / "page.html"
        file.write_text(render_html(sample_page.sample(*names)), encoding="utf-8")
        tab = chromium.Tab(chromium.running)
        tab.emulate(width=width, dark=dark)
        if paper:
            dark_mode = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            tab.call("Emulation.setEmulatedMedia", media="print", features=dark_mode)
        tab.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        tab.open(file.as_uri())
        return tab

    return open_


def shown(tab: Any, selector: str) -> list[bool]:
    """Whether each element that ``selector`` finds takes part in the picture."""
    found: list[bool] = tab.run(
        f"[...document.querySelectorAll({selector!r})].map((e) => e.getClientRects().length > 0)"
    )
    return found


def test_it_opens_from_the_disk_without_complaint_or_request(open_page: Callable[..., Any]) -> None:
    tab = open_page()
    assert tab.complaints() == []
    assert [address.partition(":")[0] for address in tab.requests()] == ["file"]
    assert shown(tab, ".toggles") == [True, True]
    assert tab.run("[...document.querySelectorAll('.pick')].map((b) => b.disabled)") == [False] * 3


def test_a_button_switches_one_line_off_in_all_panels_and_on_again(
    open_page: Callable[..., Any],
) -> None:
    tab = open_page()
    lines = ".curves .series[data-series={}]"
    before = {name: shown(tab, lines.format(name)) for name in ("adamw", "manifold", "reference")}
    assert before["manifold"] == [True] * 4  # a curve and a cross in either panel
    tab.run("document.querySelector('.curves [data-toggle=manifold]').focus()")
    tab.press(" ", 32, " ")
    pressed = "document.querySelector('.curves [data-toggle=manifold]').ariaPressed"
    assert tab.run(pressed) == "false"
    assert shown(tab, lines.format("manifold")) == [False] * 4
    for name in ("adamw", "reference"):
        assert shown(tab, lines.format(name)) == before[name]
    assert all(shown(tab, ".lines .series[data-series=manifold]"))  # another figure
    tab.press("Enter", 13, "\r")
    assert tab.run(pressed) == "true"
    assert shown(tab, lines.format("manifold")) == before["manifold"]


def test_a_line_is_highlighted_by_pointing_at_it(open_page: Callable[..., Any]) -> None:
    tab = open_page()
    tab.run("document.querySelector('.lines').scrollIntoView({behavior: 'instant'})")
    x, y = tab.run(
        "(() => { const path = document.querySelector('[data-line=\"third adamw\"] .hit');"
        "const p = path.getPointAtLength(path.getTotalLength() * 0.4);"
        "const q = p.matrixTransform(path.getScreenCTM()); return [q.x, q.y]; })()"
    )
    tab.move(x, y)
    picked = "[...document.querySelectorAll('svg .picked')].map((g) => g.dataset.line)"
    assert tab.run(picked) == ["third adamw"]
    readout = "document.querySelector('.readout').textContent"
    assert tab.run(readout) == "third adamw. Kind Text.: y, Score: 0.750, Rate: 0.100"
    faint = "getComputedStyle(document.querySelector('svg [data-line=\"first adamw\"]')).opacity"
    tab.wait(f"{faint} < 0.5")
    tab.move(5, 5)
    assert tab.run(picked) == []
    tab.wait(f"{faint} == 1")


def test_a_line_is_chosen_with_the_keyboard_and_let_go(open_page: Callable[..., Any]) -> None:
    tab = open_page()
    tab.run("document.querySelector('summary').focus()")
    tab.press("Enter", 13, "\r")
    assert tab.run("document.querySelector('details').open")
    tab.run("document.querySelector('tr[data-line=\"second manifold\"] .pick').focus()")
    tab.press(" ", 32, " ")
    tab.run("document.activeElement.blur()")
    picked = "[...document.querySelectorAll('svg .picked')].map((g) => g.dataset.line)"
    assert tab.run(picked) == ["second manifold"]
    assert tab.run("document.querySelector('.pick[aria-pressed=true]').textContent") == (
        "second manifold"
    )
    tab.press("Escape", 27)
    assert tab.run(picked) == []


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
    assert shown(tab, ".toggles, .readout") == [False, False, False]
    assert all(tab.run("[...document.querySelectorAll('.pick')].map((b) => b.disabled)"))
    assert all(shown(tab, ".series"))
    assert all(shown(tab, "main table:not(details table)"))
    tab.run("document.querySelector('summary').click()")
    assert all(shown(tab, "details table"))


@pytest.mark.parametrize("width", [320, 390, 768])
@pytest.mark.parametrize("kind", ["plain", "unbroken"])
def test_a_narrow_screen_never_scrolls_sideways(
    open_page: Callable[..., Any], width: int, kind: str
) -> None:
    names = {"plain": (), "unbroken": (("x" * 90, "y" * 90), "z" * 200, "w" * 300)}[kind]
    tab = open_page(*names, width=width)
    assert tab.run("document.documentElement.scrollWidth") <= width
    wide = tab.run(
        "[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, pre, svg') &&"
        f" e.getBoundingClientRect().right > {width} + 0.5).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    # What does not fit can be reached: its region scrolls.
    assert tab.run(
        "[...document.querySelectorAll('.scroll')].every((e) =>"
        " e.scrollWidth <= e.clientWidth || getComputedStyle(e).overflowX === 'auto')"
    )


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_lines_stand_out_in_light_and_dark(
    open_page: Callable[..., Any], dark: bool
) -> None:
    tab = open_page(dark=dark)
    tab.run("document.querySelector('details').open = true")
    page = tab.run(f"(() => {{ {CONTRAST} return light(behind(document.body)); }})()")
    assert page < 0.05 if dark else page > 0.9
    low = tab.run(
        f"(() => {{ {CONTRAST} return [...document.querySelectorAll('p, li, th, td, a, button, "
        "figcaption, code, summary, h1, h2')].filter((e) => e.getClientRects().length)"
        ".map((e) => [ink(e), e.outerHTML.slice(0, 60)]).filter(([c]) => c < 4.5); })()"
    )
    assert low == []
    lines = tab.run(
        f"(() => {{ {CONTRAST} const page = behind(document.body);"
        "return [...document.querySelectorAll('.series path:not(.hit), .swatch')].map((e) => {"
        "const style = getComputedStyle(e);"
        "return contrast(e.matches('.swatch') ? style.borderTopColor : style.stroke, page);"
        "}); })()"
    )
    assert len(lines) > 10
    assert min(lines) >= 3.0


def test_tints_grow_with_the_value_and_differ_by_sign(open_page: Callable[..., Any]) -> None:
    for dark in (False, True):
        tab = open_page(dark=dark)
        tints = tab.run(
            f"(() => {{ {CONTRAST} return [...document.querySelectorAll('.two-sided-map td')]"
            ".filter((e) => e.style.length).map((e) => rgb(getComputedStyle(e).backgroundColor)); })()"
        )
        some, less, most = tints  # +0.1, −0.2, +0.4
        assert less[0] > less[2]  # reddish
        assert most[2] > most[0]  # bluish
        page = tab.run(f"(() => {{ {CONTRAST} return rgb(behind(document.body)); }})()")
        away = [sum(abs(a - b) for a, b in zip(t, page, strict=True)) for t in (some, most)]
        assert 0 < 2 * away[0] < away[1]


def test_paper_is_light_without_buttons(open_page: Callable[..., Any]) -> None:
    tab = open_page(dark=True, paper=True)
    assert not any(shown(tab, "nav, .toggles, .skip, .readout"))
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
    assert {"Askip", "DIVscroll", "BUTTON", "BUTTONsort", "SUMMARY", "PRE"} <= seen


def test_hostile_names_run_nothing(open_page: Callable[..., Any], sample_page: ModuleType) -> None:
    evil = sample_page.EVIL
    tab = open_page((evil, f"2{evil}"), evil, evil)
    for selector in ("[data-toggle]", ".pick", ".sort"):
        tab.run(f"document.querySelectorAll({selector!r}).forEach((b) => b.click())")
    tab.run("document.querySelector('.pick').focus()")
    assert tab.run("window.pwned") is None
    assert tab.complaints() == []
    assert len(tab.requests()) == 1
    assert tab.run("document.querySelectorAll('img, main script').length") == 0
    assert tab.run("document.querySelector('h1').textContent") == evil
    assert shown(tab, ".curves .series") == [False] * tab.run(
        "document.querySelectorAll('.curves .series').length"
    )


def test_the_policy_stops_a_script_that_got_in(open_page: Callable[..., Any]) -> None:
    tab = open_page()
    tab.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.pwned=1\">');"
        "const s = document.createElement('script'); s.textContent = 'window.pwned=2';"
        "document.body.append(s)"
    )
    assert len(tab.complaints()) >= 2  # the browser reports what it refused
    assert tab.run("window.pwned") is None
