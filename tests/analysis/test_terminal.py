"""The table in the terminal: no heading or number is cut, however narrow the window."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from altgrad_core.analysis.terminal import summary_table
from altgrad_core.results.collect import load_results


def shown(folder: Path, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(summary_table(load_results(folder)))
    return console.export_text().splitlines()


@pytest.fixture
def suite(planted: ModuleType, fabricated: ModuleType, tmp_path: Path) -> Path:
    speed = "throughput/all/cumulative_samples_per_second"
    planted.write_suite(
        fabricated,
        tmp_path,
        planted.noisy({}, 0.01),
        formats=["e5m2"],
        seeds=[0, 1, 2],
        settings=[{"quantization.residency": "a_rather_long_word_for_a_residency"}],
        more=lambda *_: [
            fabricated.line(9, "monitor", {speed: 123.0, "flips/all/stall_ratio": 0.5})
        ],
    )
    return tmp_path


@pytest.mark.parametrize("width", [200, 100, 90, 80, 70, 60, 50])
def test_what_is_shown_is_whole(suite: Path, width: int) -> None:
    lines = shown(suite, width)
    assert max(map(len, lines)) <= width
    headings = re.split(r"\s{2,}", lines[1].strip())
    assert headings[0] == "Condition"
    assert headings[1] == "F1 micro"
    assert headings[-1] == "Status"
    assert set(headings) <= {"Condition", "F1 micro", "F1 macro", "Samples/s", "Stalls %", "Status"}
    rows = [line for line in lines if "3 ok" in line]
    assert len(rows) == 2
    assert len({row.split()[0] for row in rows}) == 2  # still told apart
    for row in rows:
        assert re.search(r"0\.\d{4} ± 0\.\d{4}", row)


def test_columns_go_in_order_and_the_reader_is_told(suite: Path) -> None:
    wide = "\n".join(shown(suite, 200))
    assert "Stalls %" in wide
    assert "too narrow" not in wide
    assert "a_rather_long_word_for_a_residency" in wide
    narrower = "\n".join(shown(suite, 120))
    assert "Samples/s" in narrower
    assert "50.0" not in narrower  # the stall ratio
    assert "too narrow" in narrower
