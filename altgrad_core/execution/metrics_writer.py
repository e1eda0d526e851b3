"""Writing ``metrics.jsonl`` while a run is being made: no line is lost, and none stays half written."""

from __future__ import annotations

import os

from pydantic import ValidationError

from altgrad_core._files import sync_folder
from altgrad_core.results.run_directory import Record, RecordLost, RunDirectory


class MetricsWriter:
    """Appends records to ``metrics.jsonl``, unbuffered, so that a killed run loses none."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._file = directory.metrics.open("ab", buffering=0)

    def write(self, record: Record) -> None:
        """Append one line, whole or not at all. Raises ``OSError``, as when the disk is full."""
        line = record.to_json().encode() + b"\n"
        done = 0
        try:
            while done < len(line):  # a write may take a part only
                done += self._file.write(line[done:]) or 0
        except OSError:
            self._file.truncate(self._length() - done)
            raise

    def sync(self) -> int:
        """Wait until the lines are on the disk, and return the length of the file in bytes."""
        os.fsync(self._file.fileno())
        sync_folder(self._directory.path)
        return self._length()

    def rewind(self, position: int) -> None:
        """Cut the file to its first ``position`` bytes.

        Raises ``RecordLost`` where these are no longer all there, as whole lines.
        """
        if position > self._length() or not self._readable(position):
            raise RecordLost(f"{self._directory.metrics} has lost lines that were written before")
        self._file.truncate(position)

    def _readable(self, position: int) -> bool:
        text = self._directory.metrics.read_bytes()[:position]
        if text and not text.endswith(b"\n"):
            return False
        try:
            for line in text.splitlines():
                Record.model_validate_json(line)
        except ValidationError:
            return False
        return True

    def _length(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._file.close()
