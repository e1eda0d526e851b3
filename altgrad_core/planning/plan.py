"""What a suite comes to: its cells, each a run to be or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from altgrad_core._axis import axis_text
from altgrad_core.interfaces.metric import Metric, shared
from altgrad_core.planning.declaration import Suite
from altgrad_core.planning.spec import RunSpec


@dataclass(frozen=True)
class Cell:
    """A condition with a seed: a run to be, or the reason why there is none."""

    label: str
    seed: int
    axes: dict[str, Any]
    """The axes along which the conditions differ independently: dotted key -> value."""
    spec: RunSpec | None
    skip: str | None = None
    stage: Literal["final", "tune"] = "final"
    template: RunSpec | None = None
    """Of a cell that waits: its settings without learning rate, id and fingerprint."""

    @property
    def waits(self) -> bool:
        """Whether its learning rate is still to be tuned."""
        return self.template is not None


@dataclass(frozen=True)
class Plan:
    """The cells of a suite: all conditions of the first seed, then those of the next."""

    suite: Suite
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()

    @property
    def tuned(self) -> list[str]:
        """The conditions whose learning rate is still to be tuned."""
        return list(dict.fromkeys(cell.label for cell in self.cells if cell.waits))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What the tasks of the suite measure."""
        return metrics_of(self.cells)

    @property
    def specs(self) -> list[RunSpec]:
        """The runs."""
        return [cell.spec for cell in self.cells if cell.spec is not None]

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON data; a cell's ``spec`` is what the run's ``spec.yaml`` holds."""
        contrast = self.suite.contrast
        return {
            "suite": self.suite.name,
            "description": self.suite.description,
            "source": self.suite.source,
            "seeds": list(self.suite.seeds),
            "contrast": contrast.model_dump(mode="json") if contrast else None,
            "metrics": [asdict(metric) for metric in self.metrics],
            "tune": self.suite.tune.model_dump(mode="json") if self.tuned else None,
            "notes": list(self.notes),
            "cells": [
                {
                    "condition": cell.label,
                    "seed": cell.seed,
                    "id": cell.spec.id if cell.spec else None,
                    "axes": cell.axes,
                    "skip": cell.skip,
                    "waits": cell.waits,
                    "spec": cell.spec.model_dump(mode="json") if cell.spec else None,
                }
                for cell in self.cells
            ],
        }


def metrics_of(cells: Iterable[Cell]) -> tuple[Metric, ...]:
    """What all the tasks of these cells measure."""
    specs = [spec for cell in cells if (spec := cell.spec or cell.template) is not None]
    return shared({spec.task.name: spec.metrics for spec in specs}) if specs else ()


def tuning_label(label: str, rate: float) -> str:
    """What a tuning run of the condition ``label`` is called."""
    return f"{label}_lr={axis_text(rate)}"
