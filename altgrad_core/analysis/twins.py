"""Runs that ought to be equal: the A/A pairs of a suite, and the noise floor that they measure.

Two formats whose values are equal up to a power of two are one format under two names. Under scales
that are powers of two their runs do the same arithmetic, bit for bit, so a difference between them
is a fault of the instrument. Under other scales, or on different machines, it is rounding noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from altgrad_core.analysis.groups import axes_of, keys, settings_of
from altgrad_core.analysis.summary import scores
from altgrad_core.results.collect import FORMAT_AXIS
from altgrad_core.results.run_directory import FINISHED
from altgrad_core.results.stored import StoredRun

_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Twins:
    """Two runs that differ in nothing but the name of their grid.

    Attributes:
        formats: The two names.
        setting: What else they are: optimizer and other axes, in short words.
        seed: Their seed.
        scores: Their scores; a diverged run has the worst.
        runs: Their ids.
        promised: Whether the arithmetic promises equality: scales are powers of two, the
            optimizer has no setting in the grid's own units, and both ran on the same machine with
            the same versions. None where that is not known.
    """

    formats: tuple[str, str]
    setting: str
    seed: int
    scores: tuple[float, float]
    runs: tuple[str, str] = ("", "")
    promised: bool | None = None

    @property
    def difference(self) -> float:
        """The second score − the first."""
        return self.scores[1] - self.scores[0]

    @property
    def equal(self) -> bool:
        """Whether the scores are exactly equal."""
        return self.scores[0] == self.scores[1]

    @property
    def broken(self) -> bool:
        """Whether equality was promised and not kept."""
        return self.promised is True and not self.equal


@dataclass(frozen=True)
class NoiseFloor:
    """How far apart two formats with the same grid end, all else equal."""

    formats: tuple[str, str]
    differences: tuple[float, ...]

    @property
    def largest(self) -> float:
        """The largest of the absolute differences."""
        return max(self.differences)


def find_twins(
    results: pd.DataFrame,
    metric: str,
    same_grid: Sequence[tuple[str, str]],
    runs: Mapping[str, StoredRun] | None = None,
) -> list[Twins]:
    """The runs of formats with the same grid that are equal in all else, in the suite's order.

    Pairs of which both runs diverged are left out: two worst scores are equal by decree. ``runs``
    (by id) tell whether equality is promised; without them that is not known.
    """
    done = results[results["planned"] & results["status"].isin(list(FINISHED))]
    settings = settings_of(results)
    others = [name for name in axes_of(results) if name != FORMAT_AXIS]
    places: list[tuple[Any, ...]] = [
        (int(seed), str(optimizer), *key)
        for seed, optimizer, key in zip(
            done["seed"], done["optimizer"], keys(done, others), strict=True
        )
    ]
    facts = zip(done["id"], scores(done, metric), done["status"], done["condition"], strict=True)
    table = dict(zip(zip(done["format"], places, strict=True), facts, strict=True))
    found = []
    for a, b in same_grid:
        for place in dict.fromkeys(places):
            left, right = table.get((a, place)), table.get((b, place))
            if left is None or right is None or "ok" not in (left[2], right[2]):
                continue
            if math.isfinite(left[1]) and math.isfinite(right[1]):
                ids = (str(left[0]), str(right[0]))
                both = (float(left[1]), float(right[1]))
                promised = _promised(*(runs[i] for i in ids)) if runs else None
                found.append(Twins((a, b), settings[str(left[3])], place[0], both, ids, promised))
    return found


def noise_floors(found: Sequence[Twins]) -> list[NoiseFloor]:
    """The absolute differences of each pair of formats."""
    pairs = dict.fromkeys(twins.formats for twins in found)
    return [
        NoiseFloor(pair, tuple(abs(t.difference) for t in found if t.formats == pair))
        for pair in pairs
    ]


def _promised(first: StoredRun, second: StoredRun) -> bool | None:
    """Whether the arithmetic of two runs with the same grid promises equal results."""
    scales = [_power_of_two_scales(run) for run in (first, second)]
    if None in scales:
        return None
    in_grid_units = any(
        run.spec.optimizer.settings.get("normalize") == "none" for run in (first, second)
    )
    return all(scales) and not in_grid_units and _machine(first) == _machine(second)


def _power_of_two_scales(run: StoredRun) -> bool | None:
    """Whether all scales of a run are powers of two; None where its settings are not at hand."""
    file = Path(run.location) / "spec.yaml"
    if not file.is_file():
        return None
    settings = yaml.load(file.read_bytes(), Loader=_LOADER).get("quantization", {})
    return all(_scalings(settings))


def _scalings(settings: Mapping[str, Any]) -> Iterator[bool]:
    for name, value in settings.items():
        if name.endswith("scaling") and isinstance(value, Mapping):
            yield bool(value.get("power_of_two", True))


def _machine(run: StoredRun) -> tuple[str, ...]:
    environment = run.environment
    names = ("device", "device_name", "threads", "packages")
    return tuple(str(environment.get(name)) for name in names)
