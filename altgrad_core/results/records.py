"""The numbers and events of one run, wherever it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from altgrad_core.results.run_directory import Record, RecordKind


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
        step, metrics, series = record.step, record.metrics, self.series
        for name, value in metrics.items():
            if name in series:  # as almost always: a report reads millions of numbers
                series[name][step] = value
            else:
                series[name] = {step: value}
        self.kinds.update(dict.fromkeys(metrics, record.kind))
        if record.event is not None:
            known = {key: record.event.get(key, "") for key in ("kind", "layer", "message")}
            self.events.append(StoredEvent(record.step, **known))
