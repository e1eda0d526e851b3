"""What the files of suites and runs hold, as far as tables and reports need it: plan, tuning, spec."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from altgrad_core.interfaces.metric import Metric


class _Stored(BaseModel):
    """Base of what is read back: keys that a reader does not need are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, ser_json_inf_nan="strings")


class Contrast(_Stored):
    """The comparison a suite is made for: two values of one axis, and the metric that decides."""

    axis: str
    baseline: str
    treatment: str
    metric: str


class PlannedCell(_Stored):
    """One cell of ``plan.json``; ``skip`` is the reason if it is not to be run.

    ``stage`` is ``tune`` for a run that only serves the choice of a learning rate.
    """

    id: str | None = None
    condition: str
    seed: int
    axes: dict[str, Any] = Field(default_factory=dict)
    skip: str | None = None
    stage: Literal["final", "tune"] = "final"


class TunedCondition(_Stored):
    """How the learning rate of one condition was chosen.

    scores:
        learning rate (as text) -> the metric of each tuning seed; a diverged run has the worst, or
        NaN where the metric has no worst value.
    diverged:
        learning rate (as text) -> how many of its tuning runs diverged.
    chosen:
        the rate with the best mean score; the smaller one of equals.
    censored:
        whether that rate lies on an edge of the grid, so that the best one is not known.
    largest_stable:
        the largest rate of which no run diverged and whose mean score is at least half of the best
        (the stability threshold); None if there is none.
    """

    scores: dict[str, tuple[float, ...]]
    diverged: dict[str, int] = Field(default_factory=dict)
    chosen: float
    censored: bool
    largest_stable: float | None = None

    def curve(self) -> dict[float, tuple[float, ...]]:
        """Learning rate -> scores, in the order of the rates."""
        return dict(sorted((float(rate), values) for rate, values in self.scores.items()))


class StoredTuning(_Stored):
    """Contents of ``tuning.json``: the learning-rate protocol of a suite and what it chose."""

    metric: str
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    extensions: int = 0
    """How many rates were added because the best point of a condition lay on an edge."""
    max_extensions: int = 0
    conditions: dict[str, TunedCondition] = Field(default_factory=dict)


class Declaration(_Stored):
    """What a suite was made to answer, fixed when its first run started and never changed after.

    ``at`` is Unix time, ``versions`` are the distributions' by name; contrast, metric and margin are
    the plan's of then, ``seeds`` and ``conditions`` those of its cells.
    """

    at: float
    versions: dict[str, str] = Field(default_factory=dict)
    contrast: Contrast | None = None
    margin: float | None = None
    seeds: tuple[int, ...] = ()
    conditions: tuple[str, ...] = ()


class StoredPlan(_Stored):
    """Contents of ``plan.json``: what the suite set out to do.

    ``margin`` is the smallest difference of the contrast's metric that would matter, as declared.
    ``metrics`` are what the suite's tasks declare; empty in the plans of versions before that.
    """

    suite: str
    description: str = ""
    command: str = ""
    contrast: Contrast | None = None
    cells: tuple[PlannedCell, ...] = ()
    margin: float | None = None
    metrics: tuple[Metric, ...] = ()
    declared: Declaration | None = None


class _Choice(_Stored):
    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


class _Whole(_Stored):
    """A section of which all is kept, as it was written."""

    model_config = ConfigDict(extra="allow", frozen=True)


class _Quantization(_Whole):
    format: _Choice
    residency: str = "master"
    rounding: str = "nearest"
    compensation: str = "none"
    execution: str = "simulated"


class _Training(_Whole):
    learning_rate: float
    max_steps: int


class StoredSpec(_Stored):
    """The part of ``spec.yaml`` that tables and reports need."""

    id: str
    suite: str
    condition: str
    seed: int
    axes: dict[str, Any] = Field(default_factory=dict)
    task: _Choice
    quantization: _Quantization
    optimizer: _Choice
    training: _Training
    monitors: tuple[dict[str, Any], ...] = ()
    distributions: dict[str, str] = Field(default_factory=dict)
    fingerprint: dict[str, str] = Field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
