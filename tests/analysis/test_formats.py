"""Formats by what their runs have stored, and by what is installed where none have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fabricated_runs import cell, write_plan, write_run

from altgrad_core import load_format
from altgrad_core.analysis.formats import format_table
from altgrad_core.quantization.format_numbers import numbers_of
from altgrad_core.results.stored import read_suites

STORED = {
    **{"bits": 5, "scaled": True, "exponent_bits": 2.0, "mantissa_bits": None, "binades": 3.5},
    **{"sqnr": None, "uniform": False, "grid": "abc"},
}


def table(folder: Path, *runs: tuple[str, dict[str, Any] | None]) -> Any:
    cells = []
    for seed, (name, facts) in enumerate(runs):
        cells.append(cell(name, "adamw", seed, write_run(folder, name, "adamw", seed, facts=facts)))
    write_plan(folder, cells)
    return format_table(read_suites(folder)[0])


def test_a_format_that_is_not_installed_is_known_by_its_runs(tmp_path: Path) -> None:
    found = table(tmp_path, ("theirs", None), ("theirs", {"format": STORED}), ("unknown", {}))
    assert list(found.index) == ["theirs"]
    row = found.loc["theirs"]
    assert (row["bits"], row["grid"], row["uniform"]) == (5, "abc", False)
    assert row[["mantissa_bits", "sqnr"]].isna().all()


@pytest.mark.parametrize("kept", [None, {}, {"bits": "8"}, {**STORED, "scaled": "yes"}, 3])
def test_what_is_not_stored_whole_is_worked_out(kept: Any, tmp_path: Path) -> None:
    found = table(tmp_path, ("e5m2", {"data": {}, "format": kept}))
    assert found.loc["e5m2"].to_dict() == numbers_of(load_format("e5m2"))


def test_what_is_stored_says_as_much_as_the_format(tmp_path: Path) -> None:
    numbers = json.loads(json.dumps(numbers_of(load_format("e4m3"))))
    found = table(tmp_path, ("gone", {"format": numbers}), ("e4m3", None))
    assert found.loc["gone"].to_dict() == found.loc["e4m3"].to_dict()
