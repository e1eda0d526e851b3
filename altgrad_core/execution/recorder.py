"""What a run leaves while it runs: the loop's sink, which writes the run directory and tells the trackers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from altgrad_core._files import write_json
from altgrad_core._text import plain
from altgrad_core.errors import UserError
from altgrad_core.execution.metrics_writer import MetricsWriter
from altgrad_core.execution.tracking import TrackerPanel
from altgrad_core.interfaces.monitor import Event
from altgrad_core.results.attempts import changes, with_attempt
from altgrad_core.results.objects import read_environment
from altgrad_core.results.run_directory import (
    FINISHED,
    Record,
    RecordKind,
    RunDirectory,
    Status,
    StatusName,
)

_HEARTBEAT_SECONDS = 1.0


class RunRecorder:
    """The loop's sink: the run directory is the record, trackers get copies."""

    def __init__(
        self,
        directory: RunDirectory,
        trackers: TrackerPanel,
        status: Status,
        log: Callable[[str], None],
    ) -> None:
        self.directory, self.trackers, self.status, self._log = directory, trackers, status, log
        self.started = time.time()
        self._begun = time.monotonic()
        self._seconds_before = status.seconds
        self._writer = MetricsWriter(directory)
        self.final: dict[str, float] = {}
        self._before: Mapping[str, Any] = {}
        self._now: Mapping[str, Any] = {}

    def record(self, step: int, kind: RecordKind, metrics: Mapping[str, float]) -> None:
        """Append a line and pass it on."""
        metrics = {plain(name): value for name, value in metrics.items()}
        self._writer.write(Record(step=step, kind=kind, metrics=metrics))
        self.trackers.log(step, metrics)
        if kind == "final":
            self.final = metrics
        if kind in ("evaluation", "final"):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            self._log(f"step {step}: {shown}")

    def event(self, step: int, event: Event) -> None:
        """Append an event and pass it on. Its texts come from anywhere: they are stripped and cut here."""
        kind, layer = plain(str(event.kind)), plain(str(event.layer))
        event = replace(event, kind=kind, layer=layer, message=plain(str(event.message)))
        body = {"kind": event.kind, "layer": event.layer, "message": event.message}
        self._writer.write(Record(step=step, kind="event", event=body))
        self.trackers.event(step, event)
        self._log(f"step {step}: {event.kind} ({event.layer}): {event.message}")

    def progress(self, step: int) -> None:
        """Write the heartbeat, at most once a second.

        The time that readers see is the wall clock's; when that was set back, it is written anew.
        """
        since = time.time() - (self.status.updated or 0.0)
        if not 0.0 <= since < _HEARTBEAT_SECONDS:
            self.write_status("running", step)

    def write_status(self, status: StatusName, step: int, message: str = "") -> None:
        """Replace ``status.json``. What a result was made of is on the disk before it is called one."""
        record, files = None, self.status.files
        if status in FINISHED:
            self._writer.sync()
            record, files = self.directory.record_digest(), self.directory.digests()
        self.status = self.status.model_copy(
            update={
                "status": status,
                "step": step,
                "message": message,
                "started": self.status.started or self.started,
                "updated": time.time(),
                "seconds": self._seconds_before + time.monotonic() - self._begun,
                "record": record,
                "files": files,
            }
        )
        self.directory.write_status(self.status)

    def add_notes(self, notes: Sequence[str]) -> None:
        """Add to the notes of ``status.json``, which stays as it is otherwise."""
        every = tuple(dict.fromkeys((*self.status.notes, *notes)))
        self.status = self.status.model_copy(update={"notes": every})
        self.directory.write_status(self.status)

    def sync(self) -> int:
        """Make the metrics durable."""
        return self._writer.sync()

    def rewind(self, position: int) -> None:
        """Forget what comes after the checkpoint. Raises ``RecordLost``."""
        self._writer.rewind(position)

    def begins(self, step: int, why: str = "") -> None:
        """Say where the run begins, if not as usual; and if it goes on as another machine would."""
        if why:
            self._log(f"starting again from the first step: {why}")
        elif step:
            self._log(f"going on from the checkpoint of step {step}")
        self._write_environment(step)
        if found := changes(self._environment):
            note = f"it went on under other conditions than it began with: {'; '.join(found)}"
            self._log(f"warning: {note}")
            self.add_notes([note])

    def runs_on(self, environment: Mapping[str, Any]) -> None:
        """Write down what this attempt is to run on."""
        try:
            self._before = read_environment(self.directory.environment)
        except UserError as error:
            self._log(f"what it ran on before is not known: {error}")
        self._now = environment
        self._write_environment(None)

    def _write_environment(self, step: int | None) -> None:
        self._environment = with_attempt(self._before, self._now, step)
        write_json(self.directory.environment, self._environment)
