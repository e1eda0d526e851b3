"""What a suite declares: settings, the axes along which cells differ, seeds and a contrast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from pydantic import Field, PositiveFloat, field_validator

from altgrad_core._axis import axis_text
from altgrad_core.interfaces.plugin import Settings
from altgrad_core.planning.document import Document
from altgrad_core.planning.draft import Assignment, Draft, lookup, same
from altgrad_core.planning.tune import TuneSettings


class Contrast(Settings):
    """The comparison that a suite is made for: two values of one axis."""

    axis: str = Field("optimizer.type", description="dotted key of a matrix axis")
    baseline: str = Field(description="the value to compare with")
    treatment: str = Field(description="the value that is compared")
    metric: str | None = Field(
        None, description="the metric that decides; null: the task's primary one, on the test split"
    )
    margin: PositiveFloat | None = Field(
        None,
        description="the smallest difference that would matter, declared before the runs; without "
        "it, no group can be found equivalent",
    )

    @field_validator("baseline", "treatment", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return axis_text(value)


@dataclass(frozen=True)
class Axis:
    """Settings that vary together: each row assigns every key."""

    keys: tuple[str, ...]
    rows: tuple[tuple[Assignment, ...], ...]


@dataclass(frozen=True)
class Exclusion:
    """Cells to drop: those in which every key has one of its values."""

    wanted: tuple[tuple[tuple[str, ...], tuple[Any, ...]], ...]
    document: Document

    def decided(self, values: dict[str, Any]) -> bool:
        """Whether every key is set in ``values``, so that :meth:`matches` is the last word."""
        return all(lookup(values, path)[0] for path, _ in self.wanted)

    def matches(self, values: dict[str, Any]) -> bool:
        """Whether every key is set to one of the values given for it."""
        return self.decided(values) and all(
            any(same(lookup(values, path)[1], option) for option in options)
            for path, options in self.wanted
        )


@dataclass(frozen=True)
class Suite:
    """A suite file with its overrides. Its settings are not validated yet: that is planning."""

    name: str
    description: str
    source: str
    """The file, as its user named it."""
    seeds: tuple[int, ...]
    base: tuple[Assignment, ...]
    """The sections of the file."""
    axes: tuple[Axis, ...] = ()
    """Matrix axes in the order of the file, then zipped ones; the last varies fastest."""
    include: tuple[tuple[Assignment, ...], ...] = ()
    exclude: tuple[Exclusion, ...] = ()
    forced: tuple[Assignment, ...] = ()
    """Overrides, put over every cell last."""
    contrast: Contrast | None = None
    tune: TuneSettings = field(default_factory=TuneSettings)
    """How learning rates are chosen where ``training.learning_rate`` is ``auto``."""
    written: Mapping[str, Document] = field(default_factory=dict, repr=False)
    """The sections ``contrast`` and ``tune`` as they stand in the file, for errors."""
    notes: tuple[str, ...] = ()
    """What overrides changed beyond the setting that they name."""

    def drafts(self) -> Iterator[Draft]:
        """The settings of every condition: the product of the axes, then the included ones.

        A suite without axes is one condition, unless it includes some.
        """
        base = Draft()
        for given in self.base:
            base.assign(given)
        products = product(*(axis.rows for axis in self.axes))
        rows = [sum(rows, ()) for rows in products] if self.axes or not self.include else []
        for assignments in [*rows, *self.include]:
            draft = base.copy()
            for given in (*assignments, *self.forced):
                draft.assign(given)
            yield draft

    def axis_keys(self) -> list[str]:
        """The dotted keys that the axes and the included cells set, in the order of the file."""
        rows = [row for axis in self.axes for row in axis.rows]
        found: dict[str, None] = {}
        for given in (given for row in [*rows, *self.include] for given in row):
            found.update(dict.fromkeys(given.leaves()))
        return list(found)

    def values(self, key: str) -> list[str]:
        """The distinct values of a key over all conditions, as text, in order."""
        path = tuple(key.split("."))
        found = (lookup(draft.values, path) for draft in self.drafts())
        return list(dict.fromkeys(axis_text(value) for there, value in found if there))
