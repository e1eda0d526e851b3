"""From run directories to a report, with the sections that are installed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from altgrad_core.analysis.find import find
from altgrad_core.analysis.formats import format_table
from altgrad_core.report.build import ReportFiles, build_document, watched, write_report
from altgrad_core.results.sources import read_one

EVIL = "<img src=x onerror=alert(1)>|`*_{{ 7 * 7 }}"


def reported(folder: Path) -> ReportFiles:
    suite = read_one(folder)
    return write_report(find(suite, format_table(suite)), folder / "report")


@pytest.fixture(scope="module")
def suite(fabricated: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    f, folder = fabricated, tmp_path_factory.mktemp("report") / "toy"

    def lines(fmt: str, optimizer: str, seed: int) -> list[str]:
        gain = 0.05 + 0.001 * seed if optimizer != "adamw" and fmt == "e5m2" else 0.0
        losses = [f.line(step, "train", {"train/all/loss": 1 / step}) for step in (1, 50, 100)]
        return [*losses, f.final_line(100, 0.5 + 0.01 * seed + gain)]

    f.write_matrix(folder, ["bf16", "e5m2", "e4m3"], range(5), lines)
    return folder


@pytest.fixture(scope="module")
def files(suite: Path) -> ReportFiles:
    return reported(suite)


def test_no_section_fails_and_the_order_is_that_of_the_question(files: ReportFiles) -> None:
    text = files.markdown.read_text(encoding="utf-8")
    assert "failed:" not in text
    assert "could not be drawn" not in text
    headings = [line[3:].partition(":")[0] for line in text.splitlines() if line.startswith("## ")]
    assert headings[:3] == ["Benefit", "Controls", "Results"]
    assert headings[-1] == "How to repeat"
    assert "e5m2 gains most" in text.partition("## ")[0]


def test_no_dust_no_backslash_in_code_and_links_that_lead_somewhere(
    files: ReportFiles,
) -> None:
    text = files.markdown.read_text(encoding="utf-8")
    assert not re.findall(r"e[-−]1[0-9]\b", text)
    assert not re.findall(r"`[^`\n]*\\[^`\n]*`", text)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 30
    for link in links:
        assert (files.markdown.parent / link).exists(), link


def test_every_table_travels(suite: Path, files: ReportFiles) -> None:
    names = {path.name for path in files.html.parent.iterdir()}
    assert {
        "effects.csv",
        "effects.parquet",
        "pairs.csv",
        "runs.parquet",
        "conditions.csv",
    } <= names
    effects = pd.read_csv(suite / "report" / "effects.csv")
    assert list(effects["group"]) == ["bf16", "e5m2", "e4m3"]
    assert dict(effects.set_index("group")["verdict"])["e5m2"] == "benefit"


def test_the_same_results_give_the_same_bytes(suite: Path, files: ReportFiles) -> None:
    first = {path.name: path.read_bytes() for path in _written(files)}
    second = {path.name: path.read_bytes() for path in _written(reported(suite))}
    assert first == second


def _written(files: ReportFiles) -> list[Path]:
    return [path for path in files.html.parent.rglob("*") if path.is_file()]


def test_a_page_that_is_watched_tests_nothing(suite: Path) -> None:
    document = watched(read_one(suite))
    lead = str(document.opening[0])
    assert "No verdict yet: 30 of 30 planned runs have a result" in lead
    assert "nothing is tested on a page that is watched" in lead
    found = find(read_one(suite), live=True)
    assert found.effects["p"].isna().all()
    assert set(found.effects["verdict"]) == {"unfinished"} | {""}
    again = find(read_one(suite))
    assert again.effects["p"].notna().any()


def test_names_are_shown_and_never_obeyed(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    event = f.event_line(50, "overflow", EVIL, EVIL)

    def lines(fmt: str, optimizer: str, seed: int) -> list[str]:
        return [event, f.final_line(100, 0.5 + 0.01 * seed)]

    facts = {"data": {EVIL: EVIL}}
    f.write_matrix(tmp_path, [EVIL, "bf16"], range(5), lines, description=EVIL, command=EVIL)
    for place in tmp_path.glob("*/spec.yaml"):
        (place.parent / "facts.json").write_text(json.dumps(facts))
    files = reported(tmp_path)
    page = files.html.read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") > 10
    text = files.markdown.read_text(encoding="utf-8")
    outside = "".join(text.split("```")[::2])
    assert "<img" not in outside
    assert "{{ 7 * 7 }}" in outside
    for picture in (tmp_path / "report" / "figures").iterdir():
        assert "<img" not in picture.read_text(encoding="utf-8")


def test_a_plan_without_runs_has_a_report(fabricated: ModuleType, tmp_path: Path) -> None:
    cells = [fabricated.cell("e5m2", side, 0, "0" * 12) for side in ("adamw", "manifold_adamw")]
    fabricated.write_plan(tmp_path, cells)
    text = reported(tmp_path).markdown.read_text(encoding="utf-8")
    assert "No verdict yet: 0 of 2 planned runs" in text
    assert "failed:" not in text


def test_an_empty_plan_has_a_report(fabricated: ModuleType, tmp_path: Path) -> None:
    fabricated.write_plan(tmp_path, [])
    assert "failed:" not in reported(tmp_path).markdown.read_text(encoding="utf-8")


def test_runs_without_a_plan_have_a_report(fabricated: ModuleType, tmp_path: Path) -> None:
    for side in ("adamw", "manifold_adamw"):
        fabricated.write_run(tmp_path, "e5m2", side, 0, lines=[fabricated.final_line(100, 0.5)])
    text = reported(tmp_path).markdown.read_text(encoding="utf-8")
    assert "failed:" not in text
    assert "e5m2_manifold_adamw" in text


def test_questions_that_are_not_asked_are_left_out(suite: Path) -> None:
    document = build_document(find(read_one(suite)), ["q3"])
    topics = [part.title.partition(":")[0] for part in document.parts]
    assert topics == ["Benefit", "Provenance", "How to repeat"]
