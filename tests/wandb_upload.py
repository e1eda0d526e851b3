"""Logs a suite's run directories to W&B with the real tracker and the real client.

``python wandb_upload.py SUITE_FOLDER PROJECT STEP [ID …]``: what the worker would have told the tracker
after the step, which is that of the checkpoint if a run goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.tracker import RunInfo
from altgrad_plugins.trackers.settings import WandbSettings
from altgrad_plugins.trackers.wandb import WandbTracker


def upload(directory: Path, project: str, after: int) -> None:
    spec = yaml.safe_load((directory / "spec.yaml").read_text())
    tracker = WandbTracker(WandbSettings(project=project, entity="team"))
    names = (spec[key] for key in ("id", "suite", "condition", "seed"))
    tracker.start(RunInfo(*names, directory, spec))
    final: dict[str, float] = {}
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["step"] <= after:
            continue
        if record["kind"] == "event":
            tracker.event(record["step"], Event(**record["event"]))
            continue
        metrics = {name: float(value) for name, value in record["metrics"].items()}
        tracker.log(record["step"], metrics)
        if record["kind"] == "final":
            final = metrics
    tracker.finish(json.loads((directory / "status.json").read_text())["status"], final)


if __name__ == "__main__":
    folder, project, step, *wanted = sys.argv[1:]
    for spec_file in sorted(Path(folder).glob("*/spec.yaml")):
        if not wanted or spec_file.parent.name in wanted:
            upload(spec_file.parent, project, int(step))
