"""The dashboard in a real browser: it follows the runs, and leaves the reader where they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from altgrad_core.interfaces.blocks import Paragraph
from altgrad_core.report.build import watched
from altgrad_core.report.document import Part
from altgrad_core.report.live.server import LiveServer
from altgrad_core.report.live.snapshot import Snapshot
from altgrad_core.results.stored import StoredSuite

pytestmark = pytest.mark.slow


@pytest.fixture
def server(under_way: Any) -> Iterator[LiveServer]:
    running = LiveServer(under_way.folder, watched)
    thread = threading.Thread(target=running.run)
    thread.start()
    yield running
    running.stop()
    thread.join()


@pytest.fixture
def sampled(server: LiveServer, under_way: Any, sample_document: ModuleType) -> LiveServer:
    """The server, with a small report whose text counts the logged steps."""

    def make(suite: StoredSuite) -> Any:
        points = sum(len(run.history.series["train/all/loss"]) for run in suite.runs)
        document = sample_document.sample()
        first, last = document.parts
        blocks = (*last.blocks, sample_document.table(("a", "b"), f"{points} in the end"))
        opening = (Paragraph(f"{points} points", lead=True),)
        return replace(document, opening=opening, parts=(first, Part(last.title, blocks)))

    server.snapshot = Snapshot(under_way.folder, make)
    return server


@pytest.fixture
def opened(chromium: Any, server: LiveServer) -> Iterator[Callable[..., Any]]:
    """Opens the dashboard in a tab of its own, which is closed at the end."""
    tabs = []

    def open_(**emulation: Any) -> Any:
        tab = chromium.Tab(chromium.running)
        tabs.append(tab)
        tab.emulate(**emulation)
        tab.open(server.url)
        tab.wait("document.documentElement.dataset.drawn === 'yes'", 60)
        return tab

    yield open_
    for tab in tabs:
        tab.close()


def text(selector: str) -> str:
    return f"document.querySelector({selector!r}).textContent"


def test_the_report_follows_the_metrics_of_a_run(
    opened: Callable[..., Any], server: LiveServer, under_way: Any
) -> None:
    """With the real report: a loss curve gets longer, and a run comes to its end."""
    tab = opened()
    assert tab.run(text("h1")) == "toy: report"
    assert "1 of 3 runs have ended (1 ok); 1 running, 1 pending." in tab.run(text(".whole"))
    steps = (
        "[...document.querySelectorAll('[data-figure^=curve] svg text')].map((t) => t.textContent)"
    )
    assert "40" not in tab.run(steps)
    for step in range(3, 41):
        under_way.log(step)
    under_way.beat(40)
    tab.wait(f"{steps}.includes('40')")
    tab.wait("document.querySelector('.progress progress[max=\"100\"]').value === 40")
    under_way.beat(100, status="ok")
    tab.wait(f"{text('.whole')}.includes('2 of 3 runs have ended (2 ok); 1 pending.')")
    assert tab.complaints() == []
    assert {address.removeprefix(server.url) for address in tab.requests()} == {"", "progress"}


def test_the_reader_stays_where_they_are(
    opened: Callable[..., Any], sampled: LiveServer, under_way: Any
) -> None:
    tab = opened(height=500)
    boxes = "document.querySelectorAll('[data-figure=curves] .toggles input')"
    tab.run(f"{boxes}[1].click()")
    tab.run("document.querySelectorAll('main .sort')[1].click()")
    tab.run("document.querySelector('[data-figure=curves]').scrollIntoView({behavior: 'instant'})")
    tab.run(f"{boxes}[0].focus({{preventScroll: true}})")
    top = "document.querySelector('[data-figure=curves]').getBoundingClientRect().top"
    before = tab.run(top)
    assert tab.run("window.scrollY") > 0
    # The text above grows by many lines, and so does this section.
    under_way.log(3)
    sampled.snapshot.make = grown(sampled.snapshot.make)
    tab.wait(f"{text('.lead')}.startsWith('5 points')")
    assert abs(tab.run(top) - before) < 2
    assert tab.run(f"[...{boxes}].map((box) => box.checked)") == [True, False]
    off = "[data-figure=curves] .mark-line.role-mark path[stroke='#d55e00']"
    assert tab.run(f"document.querySelectorAll({off!r}).length") == 0
    assert tab.run("document.querySelectorAll('main th')[1].ariaSort") == "descending"
    assert tab.run("document.activeElement.closest('label')?.textContent") == "adamw"
    assert "5 in the end" in tab.run(text("#content"))
    # Later, a section that has not changed is not touched: what is selected in it stays so.
    tab.run("window.keep = document.querySelector('#numbers-sample')")
    tab.run("document.querySelector('main a[href]').focus()")
    tab.run("getSelection().selectAllChildren(document.querySelector('main tbody th'))")
    under_way.log(4)
    tab.wait(f"{text('.lead')}.startsWith('6 points')")
    assert tab.run("window.keep.isConnected")
    assert tab.run("document.activeElement.getAttribute('href')").endswith("Text.")
    assert tab.run("String(getSelection())").strip() == tab.run(text("main tbody th")).strip()
    assert "6 in the end" in tab.run(text("#content"))


def grown(make: Any) -> Any:
    def longer(suite: StoredSuite) -> Any:
        document = make(suite)
        lead = document.opening[0].text + " and more" * 500
        return replace(document, opening=(Paragraph(lead, lead=True),))

    return longer


def test_a_server_that_is_gone_is_said_and_found_again(
    opened: Callable[..., Any], sampled: LiveServer, under_way: Any
) -> None:
    tab = opened()
    hosts = sampled.hosts
    try:
        sampled.hosts = frozenset()
        tab.wait(f"{text('.live .note')}.includes('does not answer')")
        assert tab.run(text(".lead")) == "4 points"  # the page is left as it was
    finally:
        sampled.hosts = hosts
    under_way.log(3)
    tab.wait(f"{text('.lead')} === '5 points'")
    assert "does not answer" not in tab.run(text(".live .note"))


def test_sections_come_and_go(
    opened: Callable[..., Any], sampled: LiveServer, under_way: Any
) -> None:
    tab = opened()
    make = sampled.snapshot.make

    def fewer(suite: StoredSuite) -> Any:
        document = make(suite)
        return replace(document, parts=document.parts[1:])

    titles = "[...document.querySelectorAll('main h2')].map((h) => h.id).join()"
    assert tab.run(titles) == "numbers-sample,lines"
    sampled.snapshot.make = fewer
    under_way.log(3)
    tab.wait(f"{titles} === 'lines'")
    assert tab.run("document.querySelectorAll('nav a').length") == 1
    sampled.snapshot.make = make
    under_way.log(4)
    tab.wait(f"{titles} === 'numbers-sample,lines'")
    assert tab.run("document.querySelectorAll('nav a').length") == 2
    assert tab.run("document.querySelectorAll('main .toggles input').length") == 2


@pytest.mark.parametrize("width", [320, 390])
def test_the_dashboard_fits_a_phone(
    opened: Callable[..., Any], sampled: LiveServer, width: int
) -> None:
    tab = opened(width=width, dark=True)
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("getComputedStyle(document.querySelector('.live .scroll')).overflowX") == "auto"


def test_hostile_names_run_nothing_while_it_updates(
    opened: Callable[..., Any], server: LiveServer, under_way: Any, sample_document: ModuleType
) -> None:
    evil = sample_document.EVIL
    server.snapshot = Snapshot(
        under_way.folder,
        lambda suite: sample_document.sample(
            (evil, f"2{evil}"),
            evil,
            f"{len(suite.runs[0].history.series)} {len(suite.runs[1].history.series)} {evil}",
        ),
    )
    tab = opened()
    cell = under_way.f.cell(evil, "adamw", 7, "1" * 12)
    under_way.f.write_plan(under_way.folder, [cell])
    tab.wait(f"{text('.progress')}.includes('onerror')")
    with (under_way.run / "metrics.jsonl").open("a") as file:
        file.write(under_way.f.line(9, "train", {"train/all/other": 1.0}) + "\n")
    tab.wait(f"{text('.lead')}.includes('2')")
    assert tab.run("window.pwned") is None
    assert tab.run("document.querySelectorAll('img').length") == 0
    assert tab.complaints() == []
