"""The whole report: complete, incomplete and hostile suites."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
from rich.console import Console

from altgrad_core.analysis.conclusion import verdict
from altgrad_core.analysis.findings import find
from altgrad_core.analysis.questions import controls
from altgrad_core.analysis.report import ReportFiles, write_report
from altgrad_core.analysis.terminal import summary_table
from altgrad_core.analysis.words import notes
from altgrad_core.errors import UserError
from altgrad_core.results.collect import load_results
from altgrad_core.results.stored import read_suite

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}
LOADING = {"src", "srcset", "data", "poster", "background", "action", "xlink:href"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._cell: str | None = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in LOADING:
                self.loaded.append(value or "")
            if (tag, name) == ("a", "href"):
                self.links.append(value or "")
            assert not name.startswith("on"), "no event handlers"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag == self._cell:
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell is not None:
            self.rows[-1][-1] += data


def page(files: ReportFiles) -> Page:
    return Page(files.html.read_text(encoding="utf-8"))


def markdown_tables(text: str) -> list[list[list[str]]]:
    """Tables as rows of cells; only an unescaped pipe ends a cell."""
    tables: list[list[list[str]]] = []
    inside = False
    for row in text.splitlines():
        if row.startswith("|"):
            if not inside:
                tables.append([])
            cells = re.split(r"(?<!\\)\|", row.strip())[1:-1]
            tables[-1].append([cell.strip() for cell in cells])
        inside = row.startswith("|")
    return tables


SCORES = {
    ("bf16", "adamw"): 0.70,
    ("bf16", "manifold_adamw"): 0.71,
    ("e5m2", "adamw"): 0.60,
    ("e5m2", "manifold_adamw"): 0.65,
    ("e0m7", "adamw"): 0.500,
    ("e0m7", "manifold_adamw"): 0.490,
    ("e1m6", "adamw"): 0.503,
    ("e1m6", "manifold_adamw"): 0.490,
}
FORMATS = ("bf16", "e5m2", "e0m7", "e1m6")
TWO = FORMATS[:2]


def make(
    f: ModuleType, folder: Path, seeds: Iterable[int], formats: Sequence[str] = FORMATS
) -> Path:
    def lines(fmt: str, optimizer: str, seed: int) -> list[str]:
        final = SCORES[fmt, optimizer] + 0.01 * seed * (1 if optimizer == "adamw" else 2)
        curve = [
            f.line(s, "train", {"train/all/loss": 1.0 / s, "train/all/learning_rate": 1e-3})
            for s in range(1, 9)
        ]
        scores = [
            f.line(s, "evaluation", {"validation/all/f1_micro_tuned": s / 10}) for s in (4, 8)
        ]
        return [*curve, *scores, f.final_line(8, final)]

    f.write_matrix(folder, formats, list(seeds), lines)
    return folder


@pytest.fixture(scope="module")
def one_seed(fabricated: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    """The report of four formats with one seed."""
    return write_report(make(fabricated, tmp_path_factory.mktemp("one"), [0]))


def said(folder: Path, same_grid: Sequence[tuple[str, str]] = ()) -> str:
    """The sentences of a suite's report."""
    found = find(read_suite(folder), same_grid)
    return " ".join([verdict(found), controls.answer(found), *notes(found)])


def test_one_seed_says_that_it_carries_no_spread(one_seed: ReportFiles) -> None:
    seen = page(one_seed)
    assert "One seed carries no spread" in seen.text
    assert "the largest gain is in e5m2, +0.0500 (from 0.6000 to 0.6500)" in seen.text
    assert "the least is −0.0130 (from 0.5030 to 0.4900) in e1m6" in seen.text
    assert "same learning rate, 0.001" in seen.text
    row = next(row for row in seen.rows if row[0] == "e5m2")
    assert row[:8] == ["e5m2", "0.6000", "0.6500", "+0.0500", "–", "–", "1", "1 of 1"]
    assert row[-1] == "one seed"


def test_three_seeds_give_mean_and_deviation(fabricated: ModuleType, tmp_path: Path) -> None:
    seen = page(write_report(make(fabricated, tmp_path, [0, 1, 2], TWO)))
    # e5m2: 0.60, 0.61, 0.62 against 0.65, 0.67, 0.69, so the differences are 0.05, 0.06, 0.07.
    # The interval is 0.06 ± 4.303 · 0.01 / √3.
    row = next(row for row in seen.rows if row[:2] == ["e5m2", "0.6100"])
    assert row[:5] == ["e5m2", "0.6100", "0.6700", "+0.0600", "+0.0352 to +0.0848"]
    assert row[5:8] == ["0.0100", "3", "3 of 3"]
    main = next(row for row in seen.rows if row[0] == "e5m2_adamw")
    assert main[:4] == ["e5m2_adamw", "3 ok", "0.6100 ± 0.0100", "0.5100 ± 0.0100"]
    assert "carries no spread" not in seen.text
    assert "significan" not in seen.text


def test_the_main_table_has_a_row_per_condition(one_seed: ReportFiles) -> None:
    files = one_seed
    expected = [f"{fmt}_{o}" for fmt in FORMATS for o in ("adamw", "manifold_adamw")]
    main = markdown_tables(files.markdown.read_text())[0]
    named = [re.sub(r"\[(.*)\]\(.*\)", r"\1", row[0].replace("\\", "")) for row in main[2:]]
    assert named == expected
    assert main[2][8:] == ["–", "–", "–", "–"]  # no monitor ran
    csv = pd.read_csv(files.csv)
    assert csv["condition"].tolist() == expected
    assert csv["f1_micro_tuned_mean"].tolist()[2] == pytest.approx(0.60)
    assert len(pd.read_parquet(files.parquet)) == 8


def test_an_unequal_pair_is_a_broken_instrument(fabricated: ModuleType, tmp_path: Path) -> None:
    text = said(make(fabricated, tmp_path, [0]), [("e0m7", "e1m6")])
    assert "The instrument is not trustworthy: e0m7 and e1m6 are the same grid" in text
    assert "1 of 2 comparisons differ, by up to 0.0030" in text
    assert "largest gain" not in text
    assert "same grid up to" not in said(tmp_path)


def test_an_exact_pair_says_what_it_does_not_show(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    f.write_matrix(tmp_path, ["e0m7", "e1m6"], [0], lambda *_: [f.final_line(8, 0.5)])
    text = said(tmp_path, [("e0m7", "e1m6")])
    assert "The instrument passes its control." in text
    assert "2 comparisons, all exactly equal" in text
    assert "how much a seed changes is another matter" in text


def test_equal_differences_have_no_best(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    f.write_matrix(tmp_path, TWO, [0], lambda *_: [f.final_line(8, 0.5)])
    text = said(tmp_path)
    assert "the difference is 0.0000 in each of bf16 and e5m2" in text
    assert "largest" not in text


def test_no_gain_is_not_called_one(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    f.write_matrix(
        tmp_path,
        ["e5m2", "e3m4"],
        [0],
        lambda fmt, o, s: [f.final_line(8, 0.6 if o == "adamw" else 0.5 + 0.05 * (fmt == "e3m4"))],
    )
    text = said(tmp_path)
    assert "no format gains; the best difference is −0.0500" in text
    assert "largest gain" not in text


def test_trouble_is_told(fabricated: ModuleType, tmp_path: Path) -> None:
    f, cells = fabricated, []
    final = [f.final_line(8, 0.6)]
    collapse = f.event_line(5, "rank_collapse", "layer_0", "below 0.5 of the first value")
    later = f.event_line(7, "rank_collapse", "layer_0", "again")
    runs: list[tuple[str, str, dict[str, Any]]] = [
        ("bf16", "adamw", {"lines": [*final, collapse, later]}),
        ("bf16", "manifold_adamw", {"status": "diverged", "message": "loss was NaN at step 3"}),
        ("e5m2", "adamw", {"status": "oom", "message": "out of memory", "step": 7}),
    ]
    for fmt, optimizer, given in runs:
        cells.append(f.cell(fmt, optimizer, 0, f.write_run(tmp_path, fmt, optimizer, 0, **given)))
    cells.append(f.cell("e5m2", "manifold_adamw", 0, None, skip="needs a CUDA device"))
    cells.append(f.cell("e7m0", "adamw", 0, "0" * 12))
    f.write_plan(tmp_path, cells)
    f.write_run(tmp_path, "e7m0", "adamw", 9, learning_rate=0.5)
    seen = page(write_report(tmp_path))
    assert "2 of 5 planned runs have a result; the rest is missing" in seen.text
    assert "1 run diverged" in seen.text
    assert "a diverged run counts as 0" in seen.text
    assert "1 run of other settings" in seen.text
    assert [
        "bf16_manifold_adamw",
        "0",
        "diverged",
        "100 of 100",
        "loss was NaN at step 3",
    ] in seen.rows
    assert ["e5m2_adamw", "0", "oom", "7 of 100", "out of memory"] in seen.rows
    assert ["e5m2_manifold_adamw", "0", "skipped", "–", "needs a CUDA device"] in seen.rows
    assert ["e7m0_adamw", "0", "pending", "–", "not run yet"] in seen.rows
    assert [
        "bf16",
        "weights",
        "rank_collapse",
        "1 of 2",
        "layer_0",
        "5",
        "below 0.5 of the first value",
    ] in seen.rows
    assert "e5m2: no pair yet for seed 0." in seen.text


def test_facts_and_provenance(fabricated: ModuleType, tmp_path: Path) -> None:
    f, cells = fabricated, []
    for seed, unseen in ((0, 3), (1, 4)):
        run = f.write_run(
            tmp_path / "runs",
            "e5m2",
            "adamw",
            seed,
            facts={
                "data": {
                    "documents": {"train": 96, "test": 24},
                    "unseen": {"test": {"labels": unseen}},
                    "min_count": 5 + seed,
                    "ok": True,
                },
                "quantization": {"layers": 3},
            },
            environment={
                "python": "3.11.9",
                "device_name": "A card",
                "packages": {"torch": "2.13.0", "numpy": "2"},
                "git": {"commit": "abcdef0123456789", "changed": True},
            },
        )
        cells.append(f.cell("e5m2", "adamw", seed, run))
    f.write_plan(tmp_path / "runs", cells, command="altgrad-bench run 'a b'")
    files = write_report(tmp_path / "runs", tmp_path / "out")
    seen = page(files)
    assert ["By split", "train", "validation", "test"] in seen.rows
    assert ["documents", "96", "–", "24"] in seen.rows
    assert ["unseen: labels", "–", "–", "3; 4"] in seen.rows
    assert ["min count", "5; 6"] in seen.rows
    assert ["ok", "yes"] in seen.rows
    row = next(row for row in seen.rows if row[0] == cells[0]["id"])
    assert row[1:5] == ["e5m2_adamw", "0", "12.5", "A card"]
    assert row[5] == "python 3.11.9, torch 2.13.0, altgrad-bench 0.1.0"
    assert row[6] == "abcdef01234…, with changes"
    assert row[7].startswith("sha256 00ff00ff")
    assert "altgrad-bench run 'a b'" in seen.text
    for link in seen.links:
        if not link.startswith("#"):
            assert (files.html.parent / link / "spec.yaml").is_file(), link


def test_different_devices_are_pointed_out(fabricated: ModuleType, tmp_path: Path) -> None:
    for seed, device in enumerate(["A card", "Another card"]):
        fabricated.write_run(tmp_path, "e5m2", "adamw", seed, environment={"device_name": device})
    assert "different devices (A card and Another card)" in said(tmp_path)


def test_the_page_stands_alone(one_seed: ReportFiles) -> None:
    html = one_seed.html.read_text(encoding="utf-8")
    seen = Page(html)
    assert {"link", "iframe", "img", "base"}.isdisjoint(seen.tags)
    assert seen.tags.count("script") == 1  # the page's own, admitted by its hash
    assert [address for address in seen.loaded if not address.startswith("#")] == []
    assert not re.search(r"url\((?!#)|@import", html)
    assert set(re.findall(r"https?://[^\"'\s<]+", html)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert len(seen.ids) == len(set(seen.ids))
    for reference in re.findall(r'(?:href="#|url\(#)([^")]+)', html):
        assert reference in seen.ids
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html
    # F1 and loss per format, the differences, and a line per condition
    assert seen.tags.count("svg") == 4 + 4 + 1 + 1
    assert seen.tags.count("h1") == 1


def test_markdown_has_even_tables_and_its_figures(one_seed: ReportFiles) -> None:
    files = one_seed
    text = files.markdown.read_text()
    tables = markdown_tables(text)
    titles = [table[0][0] or table[0][1] for table in tables]
    assert titles == [
        *("Condition", "Condition", "bf16"),  # results, the best of them, scores as a heat map
        *("Format", "Format", "Condition"),  # differences, other scores, against the reference
        *("Group", "Run"),  # by seed, provenance
    ]
    for table in tables:
        assert len({len(row) for row in table}) == 1
        assert set("".join(table[1])) <= set(":-")
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(images) == 4  # lines, differences, F1 and loss
    assert sorted(files.html.parent / image for image in images) == sorted(files.figures)
    for path in files.figures:
        assert ET.fromstring(path.read_text()).tag.endswith("svg")


def test_names_are_shown_and_never_obeyed(fabricated: ModuleType, tmp_path: Path) -> None:
    evil = '<script>alert(1)</script> | `x` $a$ & "q" [l](http://e)'
    f, cells = fabricated, []
    for optimizer in ("adamw", "manifold_adamw"):
        run = f.write_run(
            tmp_path,
            evil,
            optimizer,
            0,
            lines=[
                f.line(1, "train", {"train/all/loss": 0.5}),
                f.line(1, "monitor", {"throughput/all/cumulative_samples_per_second": 9.0}),
                f.event_line(1, evil, evil, f"{evil}\nsecond line"),
                f.final_line(1, 0.5),
            ],
            facts={"data": {evil: evil}},
            environment={"device_name": evil, "git": evil},
        )
        cells.append(f.cell(evil, optimizer, 0, run))
    f.write_plan(
        tmp_path, cells, suite=evil, description=evil, command=f"{evil}\n```\n# not a title"
    )
    files = write_report(tmp_path, same_grid=[(evil, evil)])
    seen = page(files)
    assert seen.tags.count("script") == 1
    assert f"{evil}: report" in seen.text
    assert {link for link in seen.links if "http" in link} == set()
    markdown = files.markdown.read_text()
    outside_code = re.sub(r"````sh\n.*?\n````\n", "", markdown, flags=re.DOTALL)
    assert outside_code != markdown  # the fence is longer than the backticks in the command
    assert "<script" not in outside_code
    assert all(len({len(row) for row in table}) == 1 for table in markdown_tables(markdown))
    assert markdown.splitlines()[0].startswith("# &lt;script&gt;")
    for path in files.figures:
        ET.fromstring(path.read_text())
    assert evil in "".join(ET.fromstring(files.figures[0].read_text()).itertext())


def test_a_plan_without_runs_has_a_report(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    f.write_plan(tmp_path, [f.cell("e5m2", o, 0, None) for o in ("adamw", "manifold_adamw")])
    text = page(write_report(tmp_path)).text
    assert "0 of 2 planned runs have a result" in text
    assert "No group has a result on both sides of manifold_adamw against adamw yet." in text
    assert "There are no run directories yet." in text


def test_an_empty_plan_has_a_report(fabricated: ModuleType, tmp_path: Path) -> None:
    fabricated.write_plan(tmp_path, [], contrast=None)
    assert "The suite declares no contrast" in page(write_report(tmp_path)).text


def test_runs_without_a_plan_have_a_report(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    f.write_run(tmp_path, "e5m2", "adamw", 0, lines=[f.final_line(8, 0.5)])
    text = page(write_report(tmp_path)).text
    assert "No plan.json with the command was kept." in text
    assert "declares no contrast" in text


def test_the_same_results_give_the_same_bytes(fabricated: ModuleType, tmp_path: Path) -> None:
    make(fabricated, tmp_path / "runs", [0], TWO)
    first = write_report(tmp_path / "runs", tmp_path / "a")
    second = write_report(tmp_path / "runs", tmp_path / "b")
    for name in ("markdown", "html", "csv"):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()
    again = write_report(tmp_path / "runs", tmp_path / "a")  # over an older one
    assert again == first


def test_several_suites_and_a_place_that_is_taken(fabricated: ModuleType, tmp_path: Path) -> None:
    for name in ("one", "two"):
        fabricated.write_plan(tmp_path / name, [fabricated.cell("e5m2", "adamw", 0, None)])
    with pytest.raises(UserError, match="2 suites"):
        write_report(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(tmp_path / "one", tmp_path / "file" / "out")


def test_the_terminal_shows_every_condition(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    make(f, tmp_path / "toy", [0], TWO)
    f.write_plan(tmp_path / "two", [f.cell("[red]x[/red]", "adamw", 0, None)], suite="two")
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(summary_table(load_results(tmp_path)))
    text = console.export_text()
    assert re.search(r"e5m2_manifold_adamw\s+0\.6500\s+0\.5500\s+–\s+–\s+ok", text)
    assert re.search(r"\[red\]x\[/red\]_adamw\s+–\s+–\s+–\s+–\s+pending", text)
