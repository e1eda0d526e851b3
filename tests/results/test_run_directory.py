"""The run directory: atomic writes, records, locks."""

from __future__ import annotations

import errno
import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altgrad_core._files import atomic_file, sweep, write_json
from altgrad_core.errors import UserError
from altgrad_core.results.run_directory import (
    Record,
    RunDirectory,
    Status,
    StatusName,
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


def test_a_disk_that_is_full_is_said_of_the_file(tmp_path: Path) -> None:
    def full() -> None:
        with atomic_file(tmp_path / "status.json"):
            raise OSError(errno.ENOSPC, "No space left on device")  # of write(2): names no file

    with pytest.raises(OSError, match="No space") as caught:
        full()
    assert caught.value.filename == str(tmp_path / "status.json")
    assert caught.value.errno == errno.ENOSPC


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


def test_status_of_another_version_is_a_clear_error(directory: RunDirectory) -> None:
    directory.status_file.write_text('{"status": "levitating"}')
    with pytest.raises(UserError, match=r"status\.json cannot be read .*Run the suite again"):
        directory.read_status()


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", bytes(range(256)), b'{"status": "ok"', b"[" * 9999]
)
def test_a_status_that_cannot_be_read_is_no_result_and_says_so(
    directory: RunDirectory, text: bytes
) -> None:
    directory.status_file.write_bytes(text)
    assert directory.status().status == "error"
    assert str(directory.status_file) in directory.status().message
    assert not directory.has_result()


LINES = [Record(step=step, kind="train", metrics={"train/all/loss": 0.5}) for step in (1, 2, 3)]


def written(directory: RunDirectory, *more: Record) -> None:
    directory.metrics.write_text("".join(f"{line.to_json()}\n" for line in (*LINES, *more)))


FINAL = Record(step=3, kind="final", metrics={"final/test/f1_micro": 0.5})


@pytest.mark.parametrize("digest", [True, False])
def test_a_result_whose_metrics_were_cut_is_none(directory: RunDirectory, digest: bool) -> None:
    written(directory, FINAL)
    record = directory.record_digest() if digest else None
    directory.write_status(Status(status="ok", record=record))
    assert directory.damage() == ""
    assert directory.has_result()
    whole = directory.metrics.read_bytes()
    directory.metrics.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    assert str(directory.metrics) in directory.damage()
    assert not directory.has_result()
    directory.metrics.unlink()
    assert not directory.has_result()


def test_a_run_without_a_result_is_not_damaged(directory: RunDirectory) -> None:
    written(directory)
    directory.write_status(Status(status="killed"))
    assert (directory.damage(), directory.has_result()) == ("", False)
    directory.write_status(Status(status="diverged"))
    assert (directory.damage(), directory.has_result()) == ("", True)


def test_what_a_status_says_is_stripped_and_cut(directory: RunDirectory) -> None:
    said = "\x1b[31mred\x1b[0m half \ud83d " + "x" * 50_000_000
    directory.write_status(Status(status="error", message=said, notes=("\x1b]0;title\x07note",)))
    found = directory.status()
    assert found.message.startswith("red half \ufffd xxx")
    assert found.message.endswith("characters in all)")
    assert found.notes == ("note",)
    assert directory.status_file.stat().st_size < 5000


def test_a_lone_surrogate_survives_a_json_file(tmp_path: Path) -> None:
    write_json(tmp_path / "facts.json", {"place": "acts \udcc3\udcbc", "ü": "ü"})
    text = (tmp_path / "facts.json").read_bytes()
    assert json.loads(text) == {"place": "acts \udcc3\udcbc", "ü": "ü"}
    assert "ü".encode() in text


@pytest.mark.parametrize("name", ["spec.yaml", "environment.json", "facts.json", "predictions.npz"])
def test_a_file_that_is_not_as_the_run_left_it_is_damage(
    directory: RunDirectory, name: str
) -> None:
    written(directory, FINAL)
    write_json(directory.environment, {"threads": 1})
    write_json(directory.facts, {"data": 7})
    with zipfile.ZipFile(directory.predictions, "w") as archive:
        archive.writestr("test_scores.npy", b"numbers")
    directory.write_status(
        Status(status="ok", record=directory.record_digest(), files=directory.digests())
    )
    assert directory.has_result()
    path = directory.path / name
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"1", b"2").replace(b"7", b"8").replace(b"abc", b"abd") + b" ")
    assert str(path) in directory.damage()
    path.unlink()
    assert not directory.has_result()


def test_what_dead_processes_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import os, sys, tempfile; from altgrad_core._files import temporary_prefix as prefix\n"
            "for make, name in ((tempfile.mkstemp, 'plan.json'), (tempfile.mkdtemp, 'preparation')):\n"
            "    made = make(dir=sys.argv[1], prefix=prefix(name))\n",
            str(tmp_path),
        ],
        check=True,
    )
    assert dead.returncode == 0
    assert len(list(tmp_path.iterdir())) == 2
    with atomic_file(tmp_path / "report.md") as file:
        file.write(b"of one that lives")
        kept = [".hidden", ".plan.json.mine", ".plan.json.00000000-1-abcdefgh"]
        for name in kept:
            (tmp_path / name).write_text("of somebody else")
        sweep(tmp_path)
        left = {path.name for path in tmp_path.iterdir()}
        assert len(left) == len(kept) + 1
        assert set(kept) < left
    assert (tmp_path / "report.md").read_text() == "of one that lives"
    sweep(tmp_path / "nowhere")
