"""The run directory: atomic writes, records, locks."""

from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altgrad_core._files import atomic_file
from altgrad_core.errors import UserError
from altgrad_core.results.run_directory import (
    MetricsWriter,
    Record,
    RunDirectory,
    Status,
    StatusName,
    is_running,
    run_lock,
)


@given(st.dictionaries(st.text(max_size=8), st.floats(width=64)))
def test_a_record_survives_its_line_exactly(metrics: dict[str, float]) -> None:
    line = Record(step=3, kind="train", metrics=metrics).to_json()
    json.loads(line, parse_constant=lambda name: pytest.fail(f"not strict JSON: {name}"))
    back = Record.model_validate_json(line).metrics
    assert back.keys() == metrics.keys()
    for name, value in metrics.items():
        assert back[name] == value or (math.isnan(value) and math.isnan(back[name]))


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "status.json"
    target.write_text("old")

    def halfway() -> None:
        with atomic_file(target) as file:
            file.write(b"new")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        halfway()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "abc")
    made.create("id: abc\n")
    return made


@pytest.mark.parametrize(("status", "kept"), [("ok", True), ("diverged", True), ("killed", False)])
def test_create_keeps_the_spec_of_a_result_only(
    directory: RunDirectory, status: StatusName, kept: bool
) -> None:
    directory.write_status(Status(status=status, step=5))
    directory.create("id: abc\ntrackers: [new]\n")
    assert ("new" not in directory.spec.read_text()) == kept
    assert directory.status().step == 5


def test_half_written_last_line_is_passed_over(directory: RunDirectory) -> None:
    good = Record(step=1, kind="train", metrics={"train/all/loss": 0.5}).to_json()
    directory.metrics.write_text(f'{good}\n{{"step": 2, "ki')
    assert [record.step for record in directory.records()] == [1]


def test_damaged_line_in_the_middle_names_file_and_line(directory: RunDirectory) -> None:
    good = Record(step=1, kind="train").to_json()
    directory.metrics.write_text(f"{good}\nrubbish\n{good}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        list(directory.records())


def test_rewind_cuts_to_a_position(directory: RunDirectory) -> None:
    writer = MetricsWriter(directory)
    writer.write(Record(step=1, kind="train"))
    position = writer.sync()
    writer.write(Record(step=2, kind="train"))
    writer.close()
    again = MetricsWriter(directory)
    again.rewind(position)
    again.write(Record(step=2, kind="monitor"))
    again.close()
    assert [(r.step, r.kind) for r in directory.records()] == [(1, "train"), (2, "monitor")]


def test_status_of_another_version_is_a_clear_error(directory: RunDirectory) -> None:
    directory.status_file.write_text('{"status": "levitating"}')
    with pytest.raises(UserError, match="Move the directory away"):
        directory.status()


def _hold(path: Path, ready: object, leave: object) -> None:
    with run_lock(RunDirectory(path)):
        ready.set()  # type: ignore[attr-defined]
        leave.wait(30)  # type: ignore[attr-defined]


def test_a_second_process_is_refused_while_the_first_lives(directory: RunDirectory) -> None:
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    child = context.Process(target=_hold, args=(directory.path, ready, leave))
    child.start()
    assert ready.wait(30)
    assert is_running(directory)
    with pytest.raises(UserError, match="another process"), run_lock(directory):
        pytest.fail("two processes hold one run")
    leave.set()
    child.join(30)
    assert not is_running(directory)
