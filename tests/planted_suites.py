"""Suites of fabricated runs with an effect that is known, because it was put there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import yaml

SEEDS = (0, 1, 2, 3, 4)
OPTIMIZERS = ("adamw", "manifold_adamw")

Score = Callable[[str, str, int], float | None]
"""Format, side of the contrast (with its variant) and seed -> score; None for a run that diverges."""


def noisy(gains: Mapping[str, float], noise: float, *, base: float = 0.5, seed: int = 7) -> Score:
    """Scores around ``base``; the treatment gains what ``gains`` says of its format, on average.

    Seeds shift both sides alike by up to 0.1, so that nothing is seen without pairing.
    """
    cache: dict[tuple[str, str, int], float] = {}
    generator = np.random.default_rng(seed)
    shift = generator.uniform(-0.1, 0.1, 1000)

    def score(fmt: str, side: str, run: int) -> float:
        key = (fmt, side, run)
        if key not in cache:
            own = float(generator.normal(0, noise / np.sqrt(2)))
            gain = gains.get(fmt, 0.0) if side.startswith("manifold") else 0.0
            cache[key] = base + float(shift[run]) + gain + own
        return cache[key]

    return score


def write_suite(
    f: ModuleType,
    folder: Path,
    score: Score,
    *,
    formats: Sequence[str],
    seeds: Sequence[int] = SEEDS,
    sides: Sequence[Mapping[str, Any]] = ({"type": "adamw"}, {"type": "manifold_adamw"}),
    settings: Sequence[Mapping[str, Any]] = ({},),
    more: Callable[[str, str, int], Iterable[str]] = lambda *_: (),
    quantization: Mapping[str, Any] | None = None,
    environment: Callable[[str], dict[str, Any]] | None = None,
    censored: Iterable[str] = (),
    tuned: bool = False,
    **plan: Any,
) -> Path:
    """Write the suite; ``sides`` are the optimizers with settings of their own.

    ``settings`` are further axes that all cells have. ``more`` gives further lines of a run.
    """
    cells = []
    for fmt in formats:
        for setting in settings:
            for side in sides:
                for seed in seeds:
                    cells.append(
                        _cell(
                            f,
                            folder,
                            score,
                            fmt,
                            dict(setting),
                            dict(side),
                            seed,
                            more,
                            quantization or {},
                            environment,
                        )
                    )
    f.write_plan(folder, cells, **plan)
    if tuned or censored:
        write_tuning(folder, {cell["condition"] for cell in cells}, set(censored))
    return folder


def condition_of(
    fmt: str, side: Mapping[str, Any], setting: Mapping[str, Any] | None = None
) -> str:
    """The label of a condition."""
    return "_".join(map(str, [fmt, *side.values(), *(setting or {}).values()]))


def write_tuning(folder: Path, conditions: Iterable[str], censored: set[str]) -> None:
    """A tuning file in which some conditions' best rate lies on the upper edge."""
    found = {}
    for name in sorted(conditions):
        best = "0.003" if name in censored else "0.001"
        scores = {rate: [0.3, 0.32] for rate in ("0.0003", "0.001", "0.003")}
        scores[best] = [0.6, 0.62]
        found[name] = {
            "scores": scores,
            "diverged": {"0.003": 1},
            "chosen": float(best),
            "censored": name in censored,
            "largest_stable": 0.001,
        }
    tuning = {
        "metric": "final/validation/f1_micro_tuned",
        "rates": [0.0003, 0.001, 0.003],
        "seeds": [1000, 1001],
        "extensions": 0,
        "max_extensions": 0,
        "conditions": found,
    }
    (folder / "tuning.json").write_text(json.dumps(tuning))


def _cell(
    f: ModuleType,
    folder: Path,
    score: Score,
    fmt: str,
    setting: dict[str, Any],
    side: dict[str, Any],
    seed: int,
    more: Callable[[str, str, int], Iterable[str]],
    quantization: Mapping[str, Any],
    environment: Callable[[str], dict[str, Any]] | None,
) -> dict[str, Any]:
    axes = {
        "quantization.format": fmt,
        **{f"optimizer.{name}": value for name, value in side.items()},
        **setting,
    }
    condition = condition_of(fmt, side, setting)
    value = score(fmt, " ".join(map(str, side.values())), seed)
    lines = [*more(fmt, str(side["type"]), seed)]
    identity = f.write_run(
        folder,
        fmt,
        str(side["type"]),
        seed,
        axes=axes,
        status="ok" if value is not None else "diverged",
        lines=lines if value is None else [*lines, f.final_line(100, value)],
        environment=environment(fmt) if environment is not None else None,
    )
    file = folder / identity / "spec.yaml"
    spec = yaml.safe_load(file.read_text())
    spec["condition"] = condition
    spec["quantization"] |= quantization
    for axis, setting_value in setting.items():
        section, _, name = axis.partition(".")
        if section == "quantization":
            spec["quantization"][name] = setting_value
    file.write_text(yaml.safe_dump(spec, sort_keys=False))
    return {"id": identity, "condition": condition, "seed": seed, "axes": axes, "skip": None}
