"""``altgrad-bench status``: one damaged run is named in its line, and stops no other."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from altgrad_core.errors import UserError
from altgrad_core.results.overview import print_status, status_data


def shown(folder: Path) -> str:
    out = io.StringIO()
    print_status(folder, str(folder), Console(file=out, width=400))
    return out.getvalue()


def test_a_status_that_cannot_be_read_is_an_error_of_its_run_alone(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    runs = [fabricated.write_run(tmp_path, "e5m2", "adamw", seed) for seed in (0, 1)]
    cells = [fabricated.cell("e5m2", "adamw", seed, run) for seed, run in enumerate(runs)]
    fabricated.write_plan(tmp_path, cells)
    (tmp_path / runs[0] / "status.json").write_bytes(bytes(range(256)))
    said = shown(tmp_path)
    assert "1 error, 1 ok" in said
    assert f"{runs[0]}/status.json cannot be read" in said
    data = status_data(tmp_path, "mine")
    assert (data["folder"], data["counts"]) == ("mine", {"error": 1, "ok": 1})
    assert [row["status"] for row in data["cells"]] == ["error", "ok"]
    assert [row["id"] for row in data["cells"]] == runs
    assert json.loads(json.dumps(data)) == data


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b"[" * 9999])
def test_a_plan_that_cannot_be_read_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(text)
    with pytest.raises(UserError, match=r"plan\.json cannot be read"):
        shown(tmp_path)
