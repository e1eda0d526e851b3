"""Writing metrics.jsonl: whole lines or none, and back to where a checkpoint was made."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.execution.metrics_writer import MetricsWriter
from altgrad_core.results.run_directory import Record, RecordLost, RunDirectory

LINES = [Record(step=step, kind="train", metrics={"train/all/loss": 0.5}) for step in (1, 2, 3)]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "abc")
    made.create("id: abc\n")
    return made


def written(directory: RunDirectory) -> int:
    writer = MetricsWriter(directory)
    for record in LINES:
        writer.write(record)
    position = writer.sync()
    writer.close()
    return position


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


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda text: b"", id="emptied"),
        pytest.param(lambda text: text[:70], id="cut in a line"),
        pytest.param(lambda text: text[: text.index(b"\n") + 1], id="cut between lines"),
        pytest.param(lambda text: text[:20] + bytes(len(text) - 20), id="zeroed"),
        pytest.param(lambda text: text[:-1] + b"x", id="no end of line"),
    ],
)
def test_a_position_that_is_not_whole_any_more_is_refused(
    directory: RunDirectory, harm: Callable[[bytes], bytes]
) -> None:
    position = written(directory)
    left = harm(directory.metrics.read_bytes())
    directory.metrics.write_bytes(left)
    writer = MetricsWriter(directory)
    with pytest.raises(RecordLost, match=r"metrics\.jsonl has lost lines"):
        writer.rewind(position)
    assert directory.metrics.read_bytes() == left
    writer.rewind(0)
    assert directory.metrics.read_bytes() == b""


class Short(io.RawIOBase):
    """A file that takes a few bytes at a time, and at most so many."""

    def __init__(self, path: Path, room: int) -> None:
        self.file, self.room = path.open("ab", buffering=0), room

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(bytes(data[: min(7, self.room)]))
        self.room -= taken
        return taken

    def truncate(self, size: int | None = None) -> int:
        return self.file.truncate(size)

    def fileno(self) -> int:
        return self.file.fileno()


def test_a_short_write_is_gone_on_with(directory: RunDirectory) -> None:
    writer = MetricsWriter(directory)
    writer._file = Short(directory.metrics, 10_000)  # type: ignore[assignment]
    for record in LINES:
        writer.write(record)
    assert list(directory.records()) == LINES


def test_a_line_that_does_not_fit_leaves_no_half(directory: RunDirectory) -> None:
    writer = MetricsWriter(directory)
    writer.write(LINES[0])
    kept = directory.metrics.read_bytes()
    writer._file = Short(directory.metrics, 30)  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left"):
        writer.write(LINES[1])
    assert directory.metrics.read_bytes() == kept


FINAL = Record(step=3, kind="final", metrics={"final/test/f1_micro": 0.5})
