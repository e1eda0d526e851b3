"""Results of a made-up suite, for whatever reads results: sections, trackers, pages."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from altgrad_core.analysis.find import find
from altgrad_core.analysis.formats import format_table
from altgrad_core.interfaces.section import Findings
from altgrad_core.results.sources import read_one

_METRIC = {
    **{"name": "accuracy", "label": "Accuracy", "direction": "higher"},
    **{"worst": 0.0, "primary": True, "curve": True},
}
_AXIS, _STEPS = "optimizer.type", 100
_PLAIN, _AWARE = "plain", "aware"
_FORMATS = {"wide": 0.001, "narrow": 0.03}
"""Format -> what the second optimizer gains on it."""


@cache
def sample_findings() -> tuple[Findings, ...]:
    """What sections are given: a full suite, the same while it runs, one seed, one that has just begun."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _write(root / "full", seeds=range(5))
        _write(root / "one", seeds=range(1))
        _write(root / "begun", seeds=range(2), ended=False)
        return (
            _findings(root / "full"),
            _findings(root / "full", live=True),
            _findings(root / "one"),
            _findings(root / "begun"),
        )


def _findings(folder: Path, *, live: bool = False) -> Findings:
    suite = read_one(folder)
    return find(suite, format_table(suite), live=live)


def _write(folder: Path, seeds: Sequence[int], *, ended: bool = True) -> None:
    folder.mkdir()
    cells = []
    for place, (fmt, side, seed) in enumerate(
        (fmt, side, seed) for fmt in _FORMATS for side in (_PLAIN, _AWARE) for seed in seeds
    ):
        axes = {"quantization.format": fmt, _AXIS: side}
        cell = {"id": f"{place:012x}", "condition": f"{fmt}_{side}", "seed": seed, "axes": axes}
        cells.append({**cell, "skip": None})
        if ended or place == 0:
            _write_run(folder / str(cell["id"]), cell, ended)
    question = {"axis": _AXIS, "baseline": _PLAIN, "treatment": _AWARE}
    plan: dict[str, Any] = {
        **{"suite": "sample", "description": "A sample.", "command": "altgrad-bench run sample"},
        **{"contrast": {**question, "metric": "final/test/accuracy"}, "metrics": [_METRIC]},
    }
    (folder / "plan.json").write_text(json.dumps({**plan, "cells": cells}))


def _write_run(folder: Path, cell: dict[str, Any], ended: bool) -> None:
    folder.mkdir()
    axes, seed = cell["axes"], cell["seed"]
    spec = {
        **cell,
        **{"layout": 1, "suite": "sample", "monitors": [], "trackers": [], "metrics": [_METRIC]},
        "task": {"name": "sample", "settings": {"data": {}, "model": {}}},
        "quantization": {
            "format": {"name": axes["quantization.format"], "settings": {}},
            "overrides": [],
        },
        "optimizer": {"name": axes[_AXIS], "settings": {}},
        "training": {"batch_size": 4, "learning_rate": 0.001, "max_steps": _STEPS},
        "distributions": {},
        "fingerprint": {},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    done = {"status": "ok", "step": _STEPS} if ended else {"status": "running", "step": 10}
    state = {**done, "message": "", "max_steps": _STEPS, "seconds": 12.5}
    (folder / "status.json").write_text(json.dumps(state))
    gain = (_FORMATS[axes["quantization.format"]] + 0.001 * seed) * (axes[_AXIS] == _AWARE)
    score = 0.5 + 0.01 * seed + gain
    lines = [_line(step, "train", {"train/all/loss": 1 / step}) for step in (1, 10, 50, 100)]
    lines.append(
        _line(10, "monitor", {"flips/all/stall_ratio": 0.9, "flips/layer.0/stall_ratio": 0.8})
    )
    event = {"kind": "overflow", "layer": "layer.0", "message": "3 weights"}
    lines.append(json.dumps({"step": 10, "kind": "event", "event": event}))
    lines.append(_line(50, "evaluation", {"validation/all/accuracy": score - 0.1}))
    if ended:
        final = {f"final/{split}/accuracy": score for split in ("validation", "test")}
        lines.append(_line(_STEPS, "final", final))
    (folder / "metrics.jsonl").write_text("".join(f"{one}\n" for one in lines))


def _line(step: int, kind: str, metrics: dict[str, float]) -> str:
    return json.dumps({"step": step, "kind": kind, "metrics": metrics})
