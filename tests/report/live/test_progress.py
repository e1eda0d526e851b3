"""How far the cells are, in numbers and as HTML."""

from __future__ import annotations

import fcntl
import re
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.report.render import fragment
from altgrad_core.results.overview import Progress, read_progress, summary


def progress_html(cells: list[Progress]) -> str:
    tuned = any(one.cell.stage == "tune" for one in cells)
    return fragment(
        "progress.html.j2",
        version="v",
        cells=cells,
        summary=summary(cells),
        tuned=tuned,
        trouble="",
    )


def rows(html: str) -> list[list[str]]:
    """The cells of the table, as text."""
    body = html.partition("<tbody>")[2]
    return [
        [
            unescape(re.sub("<[^>]*>", "", cell)).strip()
            for cell in re.findall("<t[hd].*?</t[hd]>", row)
        ]
        for row in re.findall("<tr>.*?</tr>", body)
    ]


def test_each_cell_has_its_status_step_and_seconds(under_way: Any) -> None:
    running, done, pending = read_progress(under_way.folder, watched=True)
    assert (done.status, done.step, done.share) == ("ok", 100, 1.0)
    assert (running.status, running.step, running.max_steps, running.share) == (
        *("running", 10, 100),
        0.1,
    )
    assert running.age is not None
    assert running.age < 5
    assert (pending.status, pending.share, pending.age) == ("pending", 0.0, None)


def test_what_is_under_way_comes_first_and_all_is_summed_up(under_way: Any) -> None:
    html = progress_html(read_progress(under_way.folder, watched=True))
    assert rows(html) == [
        ["e5m2_adamw", "0", "running", "10/100", "5", "0 s ago", ""],
        ["bf16_adamw", "0", "ok", "100/100", "12", "–", ""],
        ["e5m2_adamw", "1", "pending", "–", "–", "–", ""],
    ]
    assert "1 of 3 runs have ended (1 ok); 1 running, 1 pending." in html
    assert 'max="3" value="1.10"' in html
    links = re.findall('href="([^"]*)"', html)
    assert len(links) == 2
    assert links[0] == f"{under_way.id}/"


def test_a_silent_run_whose_process_is_gone_is_interrupted(under_way: Any) -> None:
    under_way.beat(20, age=3600)
    with (under_way.run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert (
            read_progress(under_way.folder, watched=True)[0].status == "running"
        )  # slow, but there
    found = read_progress(under_way.folder, watched=True)[0]
    assert found.status == "interrupted"
    assert "run the suite again" in found.message
    under_way.beat(21)
    assert (
        read_progress(under_way.folder, watched=True)[0].status == "running"
    )  # just heard of: not asked


def test_trouble_stands_before_what_is_done(fabricated: ModuleType, tmp_path: Path) -> None:
    f, cells = fabricated, []
    for seed, status in enumerate(["ok", "error", "diverged", "running"]):
        run = f.write_run(tmp_path, "e5m2", "adamw", seed, status=status, message=f"is {status}")
        cells.append(f.cell("e5m2", "adamw", seed, run))
    cells.append(f.cell("e5m2", "adamw", 9, None, skip="needs a CUDA device"))
    f.write_plan(tmp_path, cells)
    html = progress_html(read_progress(tmp_path, watched=True))
    assert [row[2] for row in rows(html)] == [
        *("interrupted", "error", "diverged", "ok"),
        "skipped",
    ]
    assert rows(html)[4][-1] == "needs a CUDA device"
    assert "3 of 4 runs have ended" in html
    assert re.findall('<span class="bad">([a-z]+)', html) == ["interrupted", "error"]


def test_runs_that_tune_say_so(fabricated: ModuleType, tmp_path: Path) -> None:
    cells = [
        fabricated.cell("e5m2", "adamw", 0, "0" * 12) | {"stage": "tune"},
        fabricated.cell("e5m2", "adamw", 1, "1" * 12),
    ]
    fabricated.write_plan(tmp_path, cells)
    assert [row[2] for row in rows(progress_html(read_progress(tmp_path, watched=True)))] == [
        "tune",
        "final",
    ]


def test_names_and_messages_are_text(fabricated: ModuleType, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'"
    run = fabricated.write_run(tmp_path, evil, "adamw", 0, status="error", message=evil)
    fabricated.write_plan(tmp_path, [fabricated.cell(evil, "adamw", 0, run)])
    html = progress_html(read_progress(tmp_path, watched=True))
    assert "<script" not in html
    assert rows(html)[0][0] == f"{evil}_adamw"
    assert rows(html)[0][-1] == evil
    assert not re.search('="[^"]*<', html)


def test_an_empty_plan_and_a_damaged_one(fabricated: ModuleType, tmp_path: Path) -> None:
    fabricated.write_plan(tmp_path, [])
    assert "0 of 0 runs have ended." in progress_html(read_progress(tmp_path, watched=True))
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UserError, match=r"plan\.json cannot be read"):
        read_progress(tmp_path, watched=True)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        read_progress(tmp_path, watched=True)
