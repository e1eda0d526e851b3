"""The live page is made anew when there is something new, not more often, and survives trouble."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.report.document import Document
from altgrad_core.report.live.snapshot import Snapshot
from altgrad_core.results.stored import StoredSuite


class Maker:
    """Counts the reports, keeps the suites, and takes some time on the clock."""

    def __init__(self, sample_document: ModuleType) -> None:
        self.sample_document = sample_document
        self.suites: list[StoredSuite] = []
        self.now = 0.0
        self.cost = 0.0
        self.error: Exception | None = None

    def __call__(self, suite: StoredSuite) -> Document:
        self.now += self.cost
        self.suites.append(suite)
        if self.error is not None:
            raise self.error
        points = [len(run.history.series["train/all/loss"]) for run in suite.runs]
        document: Document = self.sample_document.sample(text=f"points: {sorted(points)}")
        return document


@pytest.fixture
def maker(sample_document: ModuleType) -> Maker:
    return Maker(sample_document)


@pytest.fixture
def snapshot(under_way: Any, maker: Maker) -> Snapshot:
    return Snapshot(under_way.folder, maker, lambda: maker.now, lambda: maker.now)


def version(html: str) -> str:
    """The version of the report that the page shows, and the progress in it names the same."""
    (main,) = re.findall('<main [^>]*data-version="([0-9a-f]+)"', html)
    assert f'class="progress" data-version="{main}"' in html
    return str(main)


def ageless(html: str) -> str:
    """The page, whenever it was made: its progress says how long ago each run was heard of."""
    return re.sub(r"\d+ s ago", "", html)


def offered(snapshot: Snapshot) -> str:
    (found,) = re.findall('data-version="([0-9a-f]+)"', snapshot.progress())
    return str(found)


def test_a_report_is_made_when_its_results_have_changed(
    snapshot: Snapshot, maker: Maker, under_way: Any
) -> None:
    first = snapshot.page()
    assert "points: [2, 2]" in first
    assert version(first) == offered(snapshot)
    assert ageless(snapshot.page()) == ageless(first)
    assert len(maker.suites) == 1
    under_way.log(3)
    assert offered(snapshot) != version(first)
    assert len(maker.suites) == 1  # asking for the progress makes nothing
    second = snapshot.page()
    assert "points: [2, 3]" in second
    assert version(second) == offered(snapshot)


def test_a_heartbeat_moves_the_progress_and_not_the_report(
    snapshot: Snapshot, maker: Maker, under_way: Any
) -> None:
    before = version(snapshot.page())
    under_way.beat(55)
    assert offered(snapshot) == before
    assert "55/100" in snapshot.progress()
    under_way.beat(100, status="ok")
    assert offered(snapshot) != before  # an end is news


def test_the_report_takes_a_fifth_of_the_time_at_most(
    snapshot: Snapshot, maker: Maker, under_way: Any
) -> None:
    maker.cost = 2.0
    before = version(snapshot.page())
    under_way.log(3)
    maker.now += 7.9  # four times the two seconds have not passed
    assert offered(snapshot) == version(snapshot.page()) == before
    assert len(maker.suites) == 1
    maker.now += 0.2
    assert offered(snapshot) != before
    assert "points: [2, 3]" in snapshot.page()


def test_runs_that_have_not_changed_are_not_read_again(
    snapshot: Snapshot, maker: Maker, under_way: Any
) -> None:
    snapshot.page()
    under_way.log(3)
    snapshot.page()
    first, second = ({run.spec.id: run for run in suite.runs} for suite in maker.suites)
    for name, run in first.items():
        assert (second[name] is run) == (name != under_way.id)


def test_new_runs_and_a_new_plan_are_news(
    snapshot: Snapshot, under_way: Any, fabricated: ModuleType
) -> None:
    before = version(snapshot.page())
    fabricated.write_run(under_way.folder, "e7m0", "adamw", 0, lines=[under_way.point(1)])
    middle = offered(snapshot)
    assert middle != before
    fabricated.write_plan(under_way.folder, [], description="another")
    assert offered(snapshot) not in (before, middle)


@pytest.mark.parametrize(
    ("error", "said"),
    [(UserError("damaged <file>"), "damaged &lt;file&gt;"), (KeyError("odd"), "KeyError")],
)
def test_trouble_is_shown_until_there_is_something_new(
    snapshot: Snapshot, maker: Maker, under_way: Any, error: Exception, said: str
) -> None:
    maker.error = error
    page = snapshot.page()
    assert said in page
    assert "10/100" in page  # the progress is there all the same
    assert ageless(snapshot.page()) == ageless(page)
    assert len(maker.suites) == 1
    maker.error = None
    under_way.log(3)
    assert "points: [2, 3]" in snapshot.page()


def test_damaged_files_are_named(snapshot: Snapshot, under_way: Any) -> None:
    (under_way.run / "status.json").write_text("{}}")
    progress = snapshot.progress()
    assert "status.json cannot be read" in progress
    assert "1 error" in progress
    assert "1 ok" in progress  # the others are there
    (under_way.folder / "plan.json").unlink()
    assert "plan.json cannot be read" in snapshot.page()


def test_the_page_can_ask_its_own_server_and_nobody_else(snapshot: Snapshot) -> None:
    page = snapshot.page()
    assert "connect-src 'self'" in page
    assert page.count("<script>") == 1
