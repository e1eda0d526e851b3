"""What a run directory holds beside its metrics, as a text: whatever lies there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.interfaces.tracker import RunInfo
from altgrad_plugins.trackers.run_files import text_at_end, text_at_start


@pytest.mark.parametrize("cells", [None, 3, [3], [None, {"id": "b"}], {"id": "a"}, "a"])
def test_a_plan_that_is_none_is_left_out(tmp_path: Path, cells: Any) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"suite": "toy", "cells": cells}))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "environment.json").write_text("[")
    (tmp_path / "a" / "status.json").write_bytes(b"\xff")
    run = RunInfo("a", "toy", "c", 0, tmp_path / "a", {"seed": 1})
    assert json.loads(text_at_start(run)).keys() == {"time", "spec"}
    assert json.loads(text_at_end(tmp_path / "a")) == {}


def test_a_plan_that_asks_for_the_run_is_taken(tmp_path: Path) -> None:
    plan = {"suite": "toy", "cells": [{"id": "a"}]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    run = RunInfo("a", "toy", "c", 0, tmp_path / "a", {"seed": 1})
    assert json.loads(text_at_start(run))["plan"] == plan
