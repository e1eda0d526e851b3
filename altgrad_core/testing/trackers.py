"""The checks that every tracker must pass, built in or not. Needs no pytest."""

from __future__ import annotations

import copy
import math
import tempfile
from pathlib import Path

from altgrad_core.errors import UserError
from altgrad_core.execution.silence import Silences
from altgrad_core.execution.tracking import TrackerPanel
from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.tracker import RunInfo, Tracker


def check_tracker(tracker: Tracker, *, timeout: float = 60.0) -> None:
    """Raise ``AssertionError``, saying what is wrong, unless ``tracker`` is a good tracker.

    It is asked whether it is ready, lives through a run (metrics with NaN and inf, several records
    for one step, events), and then through the same run again, as after an interruption, in a
    temporary run directory. It must raise nothing and be done within ``timeout`` seconds each time.
    Copies of it are run.
    """
    if not isinstance(tracker, Tracker):
        raise AssertionError(f"{tracker!r} is not a Tracker")
    try:
        copy.deepcopy(tracker).ready()
    except UserError as error:
        raise AssertionError(f"the tracker is not ready: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        info = RunInfo(
            id="0123456789ab",
            suite="check",
            condition="e5m2_adamw",
            seed=1,
            directory=Path(folder),
            settings={"training": {"batch_size": 4}, "overrides": [], "path": None},
        )
        for _ in range(2):
            _live(copy.deepcopy(tracker), info, timeout)


def _live(tracker: Tracker, info: RunInfo, timeout: float) -> None:
    notices: list[str] = []
    panel = TrackerPanel([("checked", tracker)], info, notices.append, Silences(patience=timeout))
    panel.start()
    for step in (1, 2, 3):
        panel.log(step, {"train/all/loss": 1.0 / step, "train/all/learning_rate": 1e-3})
        panel.log(step, {"flips/all/stall_ratio": math.nan, "amax/all/gradient": math.inf})
    panel.event(3, Event("rank_collapse", "layer.0.weight", "a message", alert=True))
    panel.event(3, Event("monitor_failed", "all", "a message"))
    left_behind = panel.finish("ok", {"final/test/f1_micro": 0.5, "final/test/loss": -math.inf})
    if left_behind:
        raise AssertionError(f"the tracker was still busy {timeout:g} s after the end of the run")
    if notices:
        raise AssertionError(" ".join(notices))
