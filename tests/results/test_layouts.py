"""Results of every layout so far are read and reported; a change of today's layout is noticed.

Where the last test fails, the layout has changed: if what is there was released, its number grows
(``altgrad_core/interfaces/layout.py``), readers go on reading the old one, and ``tests/layouts/write.py`` writes the
new one.
"""

from __future__ import annotations

import importlib.util
import json
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import write_acts

from altgrad_core.analysis.find import find
from altgrad_core.cli_status import status_data
from altgrad_core.interfaces.layout import LAYOUT
from altgrad_core.planning.spec_file import load_spec
from altgrad_core.report.build import write_report
from altgrad_core.results.archive import read_archive
from altgrad_core.results.run_directory import RunDirectory
from altgrad_core.results.sources import read_one
from altgrad_core.training.checkpoint import load_checkpoint

KEPT = Path(__file__).parents[1] / "layouts"
NUMBERS = sorted(int(path.stem.removeprefix("layout-")) for path in KEPT.glob("layout-*.zip"))


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("layout_writer", KEPT / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=NUMBERS)
def number(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def folder(number: int, tmp_path: Path) -> Path:
    """The folder of runs of a layout."""
    with tarfile.open(KEPT / f"layout-{number}.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "layout"


def expected(number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((KEPT / f"layout-{number}.json").read_text())
    return found


def test_todays_layout_is_among_those_kept() -> None:
    assert list(range(1, LAYOUT + 1)) == NUMBERS
    assert sum(path.stat().st_size for path in KEPT.glob(f"layout-{LAYOUT}.*")) < 100_000


def test_a_folder_of_runs_is_read_as_it_was_written(
    folder: Path, number: int, writer: ModuleType
) -> None:
    assert writer.found(folder) == expected(number)
    counts = status_data(folder, "layout")["counts"]
    assert counts == {"ok": 3, "oom": 1}
    for place in folder.glob("*/spec.yaml"):
        directory = RunDirectory(place.parent)
        assert load_spec(place).id == place.parent.name
        assert directory.damage() == ""
        state = load_checkpoint(directory.checkpoint)
        assert directory.has_result() == (state is None)
        assert state is None or state["step"] == 4


def test_an_archive_is_read_and_reported(number: int, writer: ModuleType, tmp_path: Path) -> None:
    archive = KEPT / f"layout-{number}.zip"
    assert writer.found(archive) == expected(number)
    (suite,) = read_archive(archive)
    for run in suite.runs:
        kinds = run.history.kinds
        assert (kinds.get("final/test/f1_micro") == "final") == (run.status.status == "ok")
        assert bool(run.predictions("test")) == (run.status.status == "ok")
    text = write_report(find(read_one(archive)), tmp_path / "report").markdown.read_text()
    assert "manifold" in text
    assert "oom" in text


def shape(value: Any) -> Any:
    """What JSON data are made of: names and types, of a list what its first item is made of."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return "number" if type(value) in (int, float) else type(value).__name__


def line_shape(line: str) -> str:
    """Of a record; of settings, which come and go, the names at the top."""
    record = json.loads(line)
    if "settings" in record:
        record["settings"] = dict.fromkeys(record["settings"])
    return json.dumps(shape(record))


def shapes(folder: Path) -> dict[str, Any]:
    """The files of a suite's folder, without ids, and what they are made of."""
    found: dict[str, Any] = {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        where = (
            "run/" + "/".join(path.relative_to(folder).parts[1:])
            if path.parent != folder
            else path.name
        )
        match path.suffix:
            case ".json":
                made = shape(json.loads(path.read_text()))
                made.pop("files", None) if path.name == "status.json" else None
            case ".yaml":
                made = sorted(yaml.safe_load(path.read_text()))  # settings come and go
            case ".jsonl":
                made = sorted({line_shape(line) for line in path.read_text().splitlines()})
            case ".npz":
                with np.load(path) as arrays:
                    made = {
                        name: (str(arrays[name].dtype.kind), arrays[name].ndim) for name in arrays
                    }
            case ".pt":
                state = load_checkpoint(path)
                assert state is not None
                made = {name: type(item).__name__ for name, item in state.items()}
            case _:
                made = None
        kept = found.setdefault(where, [])
        kept += [made] if made not in kept else []
    return found


def test_todays_code_writes_todays_layout(writer: ModuleType, tmp_path: Path) -> None:
    with tarfile.open(KEPT / f"layout-{LAYOUT}.tar.gz") as tar:
        tar.extractall(tmp_path / "kept", filter="data")
    made = shapes(writer.make(tmp_path, write_acts))
    kept = shapes(tmp_path / "kept" / "layout")
    assert made.keys() == kept.keys()
    for name, one in kept.items():
        assert sorted(map(str, made[name])) == sorted(map(str, one)), name
