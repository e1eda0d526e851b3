"""What one run recorded, wherever it is kept: its history, and where that is read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from altgrad_core.results.objects import BROKEN_ZIP, damaged, read_environment, read_object
from altgrad_core.results.run_directory import Record, RecordKind, RunDirectory, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class StoredEvent:
    """One ``event`` line of a run."""

    step: int
    kind: str
    layer: str
    message: str


@dataclass
class History:
    """The numbers of one run, ``series[name][step]``; of a step written twice the last counts."""

    series: dict[str, dict[int, float]] = field(default_factory=dict)
    kinds: dict[str, RecordKind] = field(default_factory=dict)
    events: list[StoredEvent] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Take in one line."""
        for name, value in record.metrics.items():
            self.series.setdefault(name, {})[record.step] = value
            self.kinds[name] = record.kind
        if record.event is not None:
            known = {key: record.event.get(key, "") for key in ("kind", "layer", "message")}
            self.events.append(StoredEvent(record.step, **known))


class RunRecord(Protocol):
    """Where a run is kept. Its methods may raise ``UserError`` for what is damaged."""

    @property
    def location(self) -> str:
        """The path of a folder, or an address that begins with ``https://`` or ``http://``."""

    def status(self) -> Status:
        """How the run stands; pending where that is not known."""

    def history(self) -> History:
        """Its metrics and events."""

    def environment(self) -> dict[str, Any]:
        """Versions and hardware, as in ``environment.json``; empty where they are not known."""

    def facts(self) -> dict[str, Any]:
        """Facts about data and quantisation, as in ``facts.json``; empty where not known."""

    def predictions(self, split: str) -> dict[str, NDArray[Any]]:
        """What the run predicted for each example of a split; empty where it is not known."""


@dataclass(frozen=True)
class DirectoryRecord:
    """A run that is kept in a run directory."""

    directory: RunDirectory
    shown: str = ""
    """How its place is named, where the directory is a passing copy of it (of an archive)."""

    @property
    def location(self) -> str:
        """The path of the run directory, or where it was copied from."""
        return self.shown or str(self.directory.path)

    def status(self) -> Status:
        """Contents of ``status.json``; pending where there is none."""
        return self.directory.read_status()

    def history(self) -> History:
        """Everything in ``metrics.jsonl``."""
        history = History()
        for record in self.directory.records():
            history.add(record)
        return history

    def environment(self) -> dict[str, Any]:
        """Contents of ``environment.json``; empty where there is none."""
        return read_environment(self.directory.environment)

    def facts(self) -> dict[str, Any]:
        """Contents of ``facts.json``; empty where there is none."""
        return read_object(self.directory.facts)

    def predictions(self, split: str) -> dict[str, NDArray[Any]]:
        """The arrays of one split in ``predictions.npz``, by name; empty where there is no file."""
        import numpy as np  # commands that read no predictions start faster without it

        path = self.directory.predictions
        if not path.exists():
            return {}
        head = f"{split}_"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {n.removeprefix(head): arrays[n] for n in arrays.files if n.startswith(head)}
        except BROKEN_ZIP as error:
            raise damaged(path, str(error)) from error
