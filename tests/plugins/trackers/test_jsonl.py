"""The jsonl tracker: strict JSON, appended line by line, and harmless when it fails."""

from __future__ import annotations

import json
import math
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.execution.tracking import TrackerPanel
from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.tracker import RunInfo
from altgrad_core.testing.trackers import check_tracker
from altgrad_plugins.trackers.jsonl import JsonlTracker
from altgrad_plugins.trackers.settings import JsonlSettings


def info(directory: Path, run: str = "0123456789ab") -> RunInfo:
    return RunInfo(run, "quickstart", "e5m2_adamw", 3, directory, {"seed": 3})


def tracker(**settings: Any) -> JsonlTracker:
    return JsonlTracker(JsonlSettings(**settings))


def strict(path: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = path.read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_conformance() -> None:
    check_tracker(tracker())


def test_every_call_is_a_line_that_stands_alone(tmp_path: Path) -> None:
    one = tracker()
    one.start(info(tmp_path))
    one.log(1, {"train/all/loss": 0.1, "a/all/nan": math.nan, "a/all/inf": math.inf})
    one.log(2, {"a/all/minus": -math.inf})
    one.event(2, Event("rank_collapse", "layer.0", "fell — far", alert=True))
    one.finish("ok", {"final/test/f1_micro": 0.5})
    lines = strict(tmp_path / "tracker.jsonl")
    head = {"run": "0123456789ab", "suite": "quickstart", "condition": "e5m2_adamw", "seed": 3}
    event = {"kind": "rank_collapse", "layer": "layer.0", "message": "fell — far", "alert": True}
    assert lines == [
        {**head, "kind": "start", "settings": {"seed": 3}},
        {
            **head,
            "kind": "metrics",
            "step": 1,
            "metrics": {"train/all/loss": 0.1, "a/all/nan": "NaN", "a/all/inf": "Infinity"},
        },
        {**head, "kind": "metrics", "step": 2, "metrics": {"a/all/minus": "-Infinity"}},
        {**head, "kind": "event", "step": 2, "event": event},
        {**head, "kind": "finish", "status": "ok", "metrics": {"final/test/f1_micro": 0.5}},
    ]


def test_lines_are_there_as_soon_as_they_are_logged(tmp_path: Path) -> None:
    one = tracker()
    one.start(info(tmp_path))
    one.log(1, {"train/all/loss": 0.1})
    assert len(strict(tmp_path / "tracker.jsonl")) == 2


def test_runs_can_share_a_file_and_their_lines_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "all.jsonl"
    big = {f"family/layer.{i}/metric": 1.0 / (i + 1) for i in range(400)}

    def live(number: int) -> None:
        one = tracker(path=path)
        one.start(info(tmp_path / str(number), run=f"run{number}"))
        for step in range(20):
            one.log(step, big)
        one.finish("ok", {})

    threads = [threading.Thread(target=live, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = strict(path)
    assert len(lines) == 4 * 22
    for number in range(4):
        mine = [line for line in lines if line["run"] == f"run{number}"]
        steps = [line["step"] for line in mine if line["kind"] == "metrics"]
        assert steps == list(range(20))


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_costs_the_copy_and_nothing_else(tmp_path: Path) -> None:
    notices: list[str] = []
    panel = TrackerPanel(
        [("jsonl", tracker(path=Path("/dev/full")))], info(tmp_path), notices.append
    )
    panel.start()
    panel.log(1, {"train/all/loss": 1.0})
    assert panel.finish("ok", {}) == []
    assert len(notices) == 1
    assert "failed in start" in notices[0]
    assert "No space left" in notices[0]


def test_use_before_the_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="before its start"):
        tracker().log(1, {})
