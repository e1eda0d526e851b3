"""Suites whose effect is known, because it was put there: read as if from a disk, but made in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from altgrad_core.analysis.find import find
from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.section import Findings
from altgrad_core.results.kept import (
    Contrast,
    Declaration,
    PlannedCell,
    StoredPlan,
    StoredSpec,
    StoredTuning,
)
from altgrad_core.results.records import History, StoredEvent
from altgrad_core.results.run_directory import Record, Status
from altgrad_core.results.stored import StoredSuite

SEEDS = (0, 1, 2, 3, 4)
ACCURACY = Metric("accuracy", "Accuracy", "higher", worst=0.0, primary=True)
PERPLEXITY = Metric("perplexity", "Perplexity", "lower", primary=True)
LADDER = ("bf16", "e5m2", "e3m4")
FORMATS = pd.DataFrame(
    {
        "grid": ["", "a", "b", "c", "d", "d"],
        "uniform": [None, False, False, False, True, True],
    },
    index=["bf16", "e5m2", "e3m4", "e4m3", "e1m6", "e0m7"],
)

Score = Callable[[str, str, int], float | None]
"""Format, side and seed -> score; None for a run that diverges."""
Change = Callable[[str, str, int], Mapping[str, Any]]
"""Format, side and seed -> what is changed of the parts of a run."""


@dataclass
class Made:
    """A run that was never on a disk."""

    spec: StoredSpec
    status: Status
    history: History = field(default_factory=History)
    environment: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)
    location: str = "/nowhere"
    facts: dict[str, Any] = field(default_factory=lambda: {"data": {"documents": 7}})
    resampled: dict[str, Any] = field(default_factory=dict)

    def predictions(self, split: str) -> dict[str, Any]:
        return self.arrays if split == "test" else {}


def noisy(
    gains: Mapping[str, float], noise: float | Mapping[str, float], base: float = 0.5, seed: int = 7
) -> Score:
    """The treatment adds ``gains`` of its format on average; ``noise`` is the std of a difference.

    Seeds shift both sides alike by up to a fifth of ``base``: nothing is seen without pairing.
    """
    generator = np.random.default_rng(seed)
    shift = generator.uniform(-0.2, 0.2, 1000) * base
    known: dict[tuple[str, str, int], float] = {}

    def score(fmt: str, side: str, run: int) -> float:
        width = noise if isinstance(noise, float) else noise[fmt]
        own = known.setdefault((fmt, side, run), float(generator.normal(0, width / np.sqrt(2))))
        return base + float(shift[run]) + own + (gains.get(fmt, 0.0) if side == "new" else 0.0)

    return score


def make_suite(
    score: Score,
    *,
    formats: Sequence[str] = LADDER,
    seeds: Sequence[int] = SEEDS,
    metric: Metric = ACCURACY,
    margin: float | None = None,
    change: Change = lambda *_: {},
    sides: Sequence[Mapping[str, Any]] = ({"type": "old"}, {"type": "new"}),
    axes: Callable[[str, Mapping[str, Any]], dict[str, Any]] | None = None,
    contrast: Mapping[str, str] | None = None,
    declared: Mapping[str, Any] | None = {},
    missing: Sequence[tuple[str, str, int]] = (),
    tuning: StoredTuning | None = None,
) -> StoredSuite:
    """Formats x sides x seeds, all with a result but those that are ``missing``.

    ``declared`` overrides parts of the declaration; None for a suite that has none.
    """
    asked = Contrast(
        **{"axis": "optimizer.type", "baseline": "old", "treatment": "new"} | dict(contrast or {}),
        metric=f"final/test/{metric.name}",
    )
    cells, runs = [], []
    for fmt in formats:
        for side in sides:
            for seed in seeds:
                name = str(side["type"])
                here = {"quantization.format": fmt} | {f"optimizer.{k}": v for k, v in side.items()}
                here = axes(fmt, side) if axes is not None else here
                condition = "_".join(map(str, (fmt, *side.values())))
                changes = change(fmt, name, seed)
                spec = _spec(fmt, side, seed, condition, here, metric, changes)
                cells.append(PlannedCell(id=spec.id, condition=condition, seed=seed, axes=here))
                if (fmt, name, seed) not in missing:
                    runs.append(_made(spec, score(fmt, name, seed), metric, changes))
    before = {"at": 0.0, "contrast": asked, "margin": margin, "seeds": seeds}
    before["conditions"] = tuple(dict.fromkeys(cell.condition for cell in cells))
    plan = StoredPlan(
        suite="toy",
        contrast=asked,
        cells=tuple(cells),
        margin=margin,
        metrics=(metric,),
        declared=None if declared is None else Declaration(**before | dict(declared)),
    )
    return StoredSuite(Path("/nowhere"), plan, tuple(runs), tuning)


def judged(suite: StoredSuite, **options: Any) -> Findings:
    """The findings, with the facts of the formats of ``LADDER`` and more."""
    return find(suite, FORMATS, **options)


def effect(found: Findings, group: str) -> dict[str, Any]:
    """The row of one group."""
    rows = found.effects[found.effects["group"] == group].to_dict("records")
    assert len(rows) == 1, (group, found.effects["group"].tolist())
    return dict(rows[0])


def _spec(
    fmt: str,
    side: Mapping[str, Any],
    seed: int,
    condition: str,
    axes: dict[str, Any],
    metric: Metric,
    changes: Mapping[str, Any],
) -> StoredSpec:
    settings = {key: value for key, value in side.items() if key != "type"}
    given = {
        "suite": "toy",
        "condition": condition,
        "seed": seed,
        "axes": axes,
        "task": {"name": "toy_task", "settings": {"data": {}, "model": {}}},
        "quantization": {"format": {"name": fmt}, "scaling": {"power_of_two": True}}
        | changes.get("quantization", {}),
        "optimizer": {"name": side["type"], "settings": settings},
        "training": {"learning_rate": 0.001, "max_steps": 100, "batch_size": 8}
        | changes.get("training", {}),
        "fingerprint": {"sha256": changes.get("data", "00")},
        "metrics": (metric,),
    }
    identity = hashlib.sha256(repr((fmt, side, seed, axes, changes)).encode()).hexdigest()[:12]
    return StoredSpec(id=identity, **given)


def _made(
    spec: StoredSpec, score: float | None, metric: Metric, changes: Mapping[str, Any]
) -> Made:
    history = History()
    history.add(Record(step=50, kind="train", metrics={"train/all/loss": 1.5}))
    history.add(Record(step=50, kind="monitor", metrics={"rank/encoder.q/stable_rank": 3.0}))
    if score is None:
        history.events.append(StoredEvent(60, "diverged", "", "the loss is NaN"))
    else:
        final = {f"final/{split}/{metric.name}": score for split in ("test", "validation")}
        history.add(Record(step=100, kind="final", metrics=final))
    machine = {"device": "cpu", "device_name": "A", "threads": 1, "packages": {"torch": "2.10"}}
    status = Status(status="ok" if score is not None else "diverged", step=100, max_steps=100)
    environment = machine | changes.get("environment", {})
    return Made(spec, status, history, environment, changes.get("arrays", {}))
