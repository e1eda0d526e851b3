"""Run directories as plain files of the documented layout, written without the code under test."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

CONTRAST = {
    "axis": "optimizer.type",
    "baseline": "adamw",
    "treatment": "manifold_adamw",
    "metric": "final/test/f1_micro_tuned",
}
F1 = ("f1_micro_tuned", "f1_macro_tuned", "f1_micro", "f1_macro")
METRICS = [
    *(
        {"name": name, "label": name, "direction": "higher", "worst": 0.0, "primary": not place}
        for place, name in enumerate(F1)
    ),
    {"name": "loss", "label": "Loss", "direction": "lower"},
]


def run_id(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def number(value: float) -> float | str:
    """As the layout writes numbers that JSON lacks."""
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


def line(step: int, kind: str, metrics: dict[str, float]) -> str:
    body = {"step": step, "kind": kind, "metrics": {k: number(v) for k, v in metrics.items()}}
    return json.dumps(body)


def event_line(step: int, kind: str, layer: str, message: str) -> str:
    body = {"kind": kind, "layer": layer, "message": message}
    return json.dumps({"step": step, "kind": "event", "event": body})


def final_line(step: int, score: float) -> str:
    """All scores from one number: micro tuned is ``score``, the others lie a fixed way below."""
    test = {f"final/test/{name}": score - 0.1 * place for place, name in enumerate(F1)}
    valid = {f"final/validation/{name}": score + 0.01 - 0.1 * p for p, name in enumerate(F1)}
    return line(step, "final", {**valid, **test, "final/test/loss": 0.2})


def monitor_line(step: int, **values: float) -> str:
    """``rank__all__stable_rank=3`` is the metric ``rank/all/stable_rank``."""
    return line(step, "monitor", {k.replace("__", "/"): v for k, v in values.items()})


def write_run(
    folder: Path,
    fmt: str,
    optimizer: str,
    seed: int,
    *,
    lines: Iterable[str] = (),
    status: str = "ok",
    message: str = "",
    step: int = 100,
    layout: int = 1,
    suite: str = "toy",
    axes: dict[str, Any] | None = None,
    learning_rate: float = 0.001,
    environment: dict[str, Any] | None = None,
    facts: dict[str, Any] | None = None,
) -> str:
    """Write one run directory into the suite's ``folder`` and return its id."""
    axes = {"quantization.format": fmt, "optimizer.type": optimizer} if axes is None else axes
    identity = run_id(fmt, optimizer, seed, axes, learning_rate)
    place = folder / identity
    place.mkdir(parents=True)
    spec = {
        "layout": layout,
        "id": identity,
        "suite": suite,
        "condition": f"{fmt}_{optimizer}",
        "axes": axes,
        "seed": seed,
        "task": {"name": "toy_task", "settings": {"data": {}, "model": {}}},
        "quantization": {"format": {"name": fmt, "settings": {}}, "overrides": []},
        "optimizer": {"name": optimizer, "settings": {"beta": 0.9}},
        "training": {"batch_size": 4, "learning_rate": learning_rate, "max_steps": 100},
        "monitors": [],
        "trackers": [],
        "distributions": {"altgrad-bench": "0.1.0"},
        "fingerprint": {"sha256": "00ff" * 16},
        "metrics": METRICS,
    }
    (place / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    state = {"status": status, "message": message, "step": step, "max_steps": 100, "seconds": 12.5}
    (place / "status.json").write_text(json.dumps(state))
    (place / "metrics.jsonl").write_text("".join(f"{text}\n" for text in lines))
    if environment is not None:
        (place / "environment.json").write_text(json.dumps(environment))
    if facts is not None:
        (place / "facts.json").write_text(json.dumps(facts))
    return identity


def cell(
    fmt: str, optimizer: str, seed: int, identity: str | None, skip: str | None = None
) -> dict[str, Any]:
    axes = {"quantization.format": fmt, "optimizer.type": optimizer}
    condition = f"{fmt}_{optimizer}"
    return {"id": identity, "condition": condition, "seed": seed, "axes": axes, "skip": skip}


def write_plan(folder: Path, cells: Sequence[dict[str, Any]], **more: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plan = {
        "suite": "toy",
        "description": "A toy.",
        "command": "altgrad-bench run toy",
        "contrast": CONTRAST,
        "metrics": METRICS,
        "cells": list(cells),
    }
    (folder / "plan.json").write_text(json.dumps(plan | more))


def write_matrix(
    folder: Path,
    formats: Sequence[str],
    seeds: Sequence[int],
    lines: Callable[[str, str, int], Iterable[str]],
    **more: Any,
) -> None:
    """A suite of formats × both optimizers × seeds, all ok, with the lines that ``lines`` gives."""
    cells = []
    for fmt in formats:
        for optimizer in ("adamw", "manifold_adamw"):
            for seed in seeds:
                identity = write_run(
                    folder, fmt, optimizer, seed, lines=lines(fmt, optimizer, seed)
                )
                cells.append(cell(fmt, optimizer, seed, identity))
    write_plan(folder, cells, **more)
