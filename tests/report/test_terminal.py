"""The table in the terminal: no heading or number is cut, however narrow the window."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from altgrad_core.analysis.find import find
from altgrad_core.interfaces.section import Findings
from altgrad_core.report.terminal import main_table
from altgrad_core.results.sources import read_one

HEADINGS = ["Condition", "Status", "f1_micro_tuned", "f1_macro_tuned", "f1_micro", "Samples/s"]


def shown(found: Findings, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(main_table(found))
    return console.export_text().splitlines()


@pytest.fixture(scope="module")
def suite(fabricated: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    f = fabricated
    speed = {"throughput/all/cumulative_samples_per_second": 123.0}
    long = "e5m2_with_a_rather_long_word_for_a_residency"

    def lines(fmt: str, optimizer: str, seed: int) -> list[str]:
        return [f.line(9, "monitor", speed), f.final_line(100, 0.5 + 0.01 * seed)]

    folder = tmp_path_factory.mktemp("terminal")
    f.write_matrix(folder, [long], [0, 1, 2], lines)
    return find(read_one(folder))


@pytest.mark.parametrize("width", [200, 100, 90, 80, 70, 60, 50])
def test_what_is_shown_is_whole(suite: Findings, width: int) -> None:
    lines = shown(suite, width)
    assert max(map(len, lines)) <= width
    headings = re.split(r"\s{2,}", lines[1].strip())
    assert headings[:3] == HEADINGS[:3]
    assert headings == HEADINGS[: len(headings)]
    rows = [line for line in lines if " ok " in line]
    assert len(rows) == 2
    assert len({row.split()[0] for row in rows}) == 2  # still told apart
    for row in rows:
        assert re.search(r"0\.\d{4} ± 0\.\d{4}", row)


def test_columns_go_from_the_right_and_the_reader_is_told(suite: Findings) -> None:
    wide = "\n".join(shown(suite, 200))
    assert "123" in wide
    assert "too narrow" not in wide
    assert "a_rather_long_word_for_a_residency" in wide
    narrower = "\n".join(shown(suite, 110))
    assert "f1_macro_tuned" in narrower
    assert "123" not in narrower
    assert "too narrow" in narrower


def test_how_the_runs_ended_is_marked(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    cells = []
    for seed, status in enumerate(["ok", "diverged", "error"]):
        run = f.write_run(
            tmp_path, "e5m2", "adamw", seed, status=status, lines=[f.final_line(1, 0.5)]
        )
        cells.append(f.cell("e5m2", "adamw", seed, run))
    f.write_plan(tmp_path, [*cells, f.cell("e5m2", "adamw", 3, "0" * 12)], contrast=None)
    assert "1 ok, 1 diverged, 1 error, 1 pending" in "\n".join(shown(find(read_one(tmp_path)), 200))
