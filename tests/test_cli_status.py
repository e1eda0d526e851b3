"""``altgrad-bench status``: one damaged run is named in its line, and stops no other."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from altgrad_core import cli_status
from altgrad_core.cli_status import print_status, status_data, watch_status
from altgrad_core.errors import UserError
from altgrad_core.results.run_directory import RunDirectory


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


def test_watching_ends_when_every_run_has_and_says_whether_all_is_well(
    fabricated: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [fabricated.write_run(tmp_path, "e5m2", "adamw", seed) for seed in (0, 1)]
    cells = [fabricated.cell("e5m2", "adamw", seed, run) for seed, run in enumerate(runs)]
    fabricated.write_plan(tmp_path, cells)
    directory = RunDirectory(tmp_path / runs[0])
    done = directory.status()
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        ends = {2: "ok", 4: "error"}
        if name := ends.get(len(waits)):
            directory.write_status(done.model_copy(update={"status": name}))

    monkeypatch.setattr(cli_status.time, "sleep", wait)
    for expected, begin in ((True, 1), (False, 3)):
        directory.write_status(done.model_copy(update={"status": "pending"}))
        out = io.StringIO()
        terminal = expected  # once in place, once in lines
        console = Console(file=out, width=200, force_terminal=terminal)
        assert watch_status([(tmp_path, "mine")], console) == expected
        assert len(waits) == begin + 1
        assert "2 of 2 runs have ended" in out.getvalue()
        assert out.getvalue().count("1 of 2 runs") == (1 if not terminal else 2)
