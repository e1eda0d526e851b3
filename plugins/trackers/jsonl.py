"""A tracker that appends lines of JSON to a file, for whatever ships logs elsewhere.

Every line can stand alone: it names its run, suite, condition and seed, and has a ``kind`` of
``start`` (with ``settings``), ``metrics`` (``step``, ``metrics``), ``event`` (``step``, ``event``)
or ``finish`` (``status``, ``metrics``). NaN and the infinities are the strings ``"NaN"``,
``"Infinity"`` and ``"-Infinity"``. A run that goes on after an interruption starts again with a
``start`` line and repeats the steps since its last checkpoint; the record without repetitions is
``metrics.jsonl``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from io import FileIO
from typing import Any

from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.tracker import RunInfo, Tracker
from altgrad_plugins.trackers.settings import JsonlSettings


class JsonlTracker(Tracker):
    """Appends to ``path``. Runs may share a file: each line is one write in append mode."""

    def __init__(self, settings: JsonlSettings) -> None:
        self.path = settings.path
        self._run: dict[str, Any] = {}
        self._file: FileIO | None = None

    def start(self, run: RunInfo) -> None:
        """Open the file, with the folders above it."""
        path = run.directory / self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._run = {
            "run": run.id,
            "suite": run.suite,
            "condition": run.condition,
            "seed": run.seed,
        }
        self._write({"kind": "start", "settings": dict(run.settings)})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the metrics of a step."""
        self._write({"kind": "metrics", "step": step, "metrics": _numbers(metrics)})

    def event(self, step: int, event: Event) -> None:
        """Append an event."""
        self._write({"kind": "event", "step": step, "event": asdict(event)})

    def finish(self, status: str, summary: Mapping[str, float]) -> None:
        """Append the end and close the file."""
        self._write({"kind": "finish", "status": status, "metrics": _numbers(summary)})
        if self._file is not None:
            self._file.close()

    def _write(self, body: Mapping[str, Any]) -> None:
        if self._file is None:
            raise RuntimeError("the jsonl tracker was used before its start")
        line = json.dumps({**self._run, **body}, allow_nan=False).encode() + b"\n"
        written = self._file.write(line)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes could be written to {self.path}")


def _numbers(metrics: Mapping[str, float]) -> dict[str, float | str]:
    return {name: _number(value) for name, value in metrics.items()}


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
