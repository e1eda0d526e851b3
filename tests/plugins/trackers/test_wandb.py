"""The wandb tracker: what it asks of wandb, and a real run of wandb in offline mode."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from waiting import until
from warm_cli import Cli, warm_cli

from altgrad_core.errors import UserError
from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.tracker import RunInfo
from altgrad_core.registry.catalog import catalog
from altgrad_core.testing.trackers import check_tracker
from altgrad_plugins.trackers.settings import WandbSettings
from altgrad_plugins.trackers.wandb import WandbTracker


def info(directory: Path) -> RunInfo:
    settings = {"optimizer": {"name": "adamw"}, "seed": 3}
    return RunInfo("0123456789ab", "quickstart", "e5m2_adamw", 3, directory, settings)


class FakeRun:
    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.alerts: list[dict[str, str]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None

    def log(self, metrics: dict[str, Any], step: int) -> None:
        self.logged.append((metrics, step))

    def alert(self, **alert: str) -> None:
        self.alerts.append(alert)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for wandb that remembers how it was opened."""
    module = SimpleNamespace(run=FakeRun(), asked={})

    def init(**asked: Any) -> FakeRun:
        module.asked.update(asked)
        run: FakeRun = module.run
        return run

    module.init, module.Settings = init, dict
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


SAID_OUTSIDE = ("MODE", "PROJECT", "ENTITY", "TAGS", "RUN_GROUP", "NAME", "API_KEY", "DIR")


@pytest.fixture
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SAID_OUTSIDE:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)


@pytest.mark.usefixtures("nothing_said")
def test_what_is_unset_is_left_to_wandb(fake: SimpleNamespace, tmp_path: Path) -> None:
    WandbTracker(WandbSettings()).start(info(tmp_path))
    left = ("mode", "project", "entity", "tags")
    assert [fake.asked[name] for name in left] == [None] * 4
    assert (fake.asked["group"], fake.asked["name"]) == ("quickstart", "e5m2_adamw_seed3")


def test_the_environment_names_group_and_run(
    fake: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    monkeypatch.setenv("WANDB_NAME", "mine")
    WandbTracker(WandbSettings()).start(info(tmp_path))
    assert (fake.asked["group"], fake.asked["name"]) == (None, None)
    WandbTracker(WandbSettings(group="g", name="n")).start(info(tmp_path))
    assert (fake.asked["group"], fake.asked["name"]) == ("g", "n")


@pytest.mark.usefixtures("nothing_said")
def test_names_of_ours_stay_within_the_limits(fake: SimpleNamespace, tmp_path: Path) -> None:
    WandbTracker(WandbSettings()).start(
        replace(info(tmp_path), suite="s" * 200, condition="c" * 200)
    )
    assert (len(fake.asked["group"]), len(fake.asked["name"])) == (128, 128)
    assert fake.asked["name"].endswith("c_seed3")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"project": "a/b"}, "'a/b' has /"),
        ({"project": "what?#"}, "has # ?"),
        ({"project": "p" * 129}, "this has 129"),
        ({"project": ""}, "this has 0"),
        ({"group": "g" * 129}, "this has 129"),
        ({"name": "n" * 129}, "this has 129"),
        ({"tags": ["fine", "t" * 65]}, "has 65"),
        ({"tags": [""]}, "has 0"),
    ],
)
def test_limits_of_wandb_are_known_while_planning(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        catalog().validate("tracker", "wandb", setting)
    catalog().validate("tracker", "wandb", {"project": "p" * 128, "tags": ["t" * 64]})


@pytest.mark.usefixtures("nothing_said")
def test_wandb_is_told_which_run_this_is(fake: SimpleNamespace, tmp_path: Path) -> None:
    given = WandbSettings(entity="team", project="altgrad-bench", mode="online", tags=("a", "b"))
    WandbTracker(given).start(info(tmp_path))
    settings = fake.asked.pop("settings")
    assert settings == {"console": "off", "silent": True}
    known = json.loads(fake.asked["config"].pop("altgrad_bench"))
    assert known.keys() == {"time", "spec"}  # no file lies in or beside the run directory
    assert fake.asked == {
        "id": "0123456789ab",
        "resume": "allow",
        "mode": "online",
        "project": "altgrad-bench",
        "entity": "team",
        "group": "quickstart",
        "name": "e5m2_adamw_seed3",
        "tags": ["a", "b"],
        "dir": str(tmp_path),
        "config": {"optimizer": {"name": "adamw"}, "seed": 3},
        "force": True,
    }


def test_names_can_be_chosen(fake: SimpleNamespace, tmp_path: Path) -> None:
    settings = WandbSettings(project="p", group="g", name="n", mode="offline")
    WandbTracker(settings).start(info(tmp_path))
    assert [fake.asked[key] for key in ("project", "group", "name", "mode")] == [
        *("p", "g", "n", "offline")
    ]


def event(step: int, kind: str, layer: str, message: str) -> dict[str, Any]:
    return {"step": step, "kind": kind, "layer": layer, "message": message}


def test_metrics_alerts_and_the_end(fake: SimpleNamespace, tmp_path: Path) -> None:
    tracker = WandbTracker(WandbSettings())
    tracker.start(info(tmp_path))
    tracker.log(1, {"train/all/loss": 1.0})
    tracker.log(1, {"rank/all/stable_rank": 2.0})
    tracker.event(2, Event("rank_collapse", "l" * 100, "stable rank 1, at first 9", alert=True))
    tracker.event(3, Event("monitor_failed", "all", "not for waking anyone"))
    tracker.finish("ok", {"final/test/f1_micro": 0.5})
    run = fake.run
    assert run.logged == [({"train/all/loss": 1.0}, 1), ({"rank/all/stable_rank": 2.0}, 1)]
    assert len(run.alerts) == 1
    assert run.alerts[0]["title"].startswith("rank_collapse lll")
    assert len(run.alerts[0]["title"]) < 64
    assert run.alerts[0]["text"] == f"step 2, {'l' * 100}: stable rank 1, at first 9"
    assert run.alerts[0]["level"] == "WARN"
    assert run.summary == {
        "final/test/f1_micro": 0.5,
        "status": "ok",
        "altgrad_bench": "{}",
        "events": [
            event(2, "rank_collapse", "l" * 100, "stable rank 1, at first 9"),
            event(3, "monitor_failed", "all", "not for waking anyone"),
        ],
    }
    assert run.exit_code == 0


def test_what_the_run_directory_knows_goes_along_word_for_word(
    fake: SimpleNamespace, tmp_path: Path
) -> None:
    run, place = info(tmp_path / "run"), tmp_path / "run"
    place.mkdir()
    files = {
        place / "environment.json": {"device": "cpu", "threads": 1.0},
        place / "status.json": {"status": "ok", "message": "", "seconds": 2.0},
        place / "facts.json": {"data": {"z": 1.0, "a": ["ä", None]}},
        tmp_path / "plan.json": {"suite": "quickstart", "cells": [{"id": run.id}, {"id": None}]},
        tmp_path / "tuning.json": {"rates": [1.0]},
    }
    for path, body in files.items():
        path.write_text(json.dumps(body))
    tracker = WandbTracker(WandbSettings())
    tracker.start(run)
    tracker.finish("ok", {})
    start = json.loads(fake.asked["config"]["altgrad_bench"])
    assert start.pop("time") == pytest.approx(time.time(), abs=60)
    end = json.loads(fake.run.summary["altgrad_bench"])
    found = [*(start[k] for k in ("environment", "plan", "tuning")), end["status"], end["facts"]]
    names = ("environment.json", "plan.json", "tuning.json", "status.json", "facts.json")
    assert json.dumps(found) == json.dumps(
        [body for n in names for path, body in files.items() if path.name == n]
    )
    assert start["spec"] == run.settings


@pytest.mark.parametrize("plan", ['{"cells": [{"id": "another"}]}', "{half", "[]"])
def test_a_plan_of_other_runs_or_a_damaged_one_stays_behind(
    fake: SimpleNamespace, tmp_path: Path, plan: str
) -> None:
    (tmp_path / "plan.json").write_text(plan)
    (tmp_path / "tuning.json").write_text('{"rates": [1]}')
    WandbTracker(WandbSettings()).start(info(tmp_path / "run"))
    assert json.loads(fake.asked["config"]["altgrad_bench"]).keys() == {"time", "spec"}


def test_events_are_bounded_and_the_rest_is_counted(fake: SimpleNamespace, tmp_path: Path) -> None:
    tracker = WandbTracker(WandbSettings())
    tracker.start(info(tmp_path))
    for step in range(203):
        tracker.event(step, Event("overflow", "all", "again"))
    assert [e["step"] for e in fake.run.summary["events"]] == list(range(200))
    assert fake.run.summary["events_left_out"] == 3


def test_a_run_that_goes_on_keeps_its_events_and_does_not_repeat_them(
    fake: SimpleNamespace, tmp_path: Path
) -> None:
    before = [event(1, "k", "l", "m"), event(2, "k", "l", "m")]
    fake.run.summary["events"] = list(before)
    tracker = WandbTracker(WandbSettings())
    tracker.start(info(tmp_path))
    tracker.event(2, Event("k", "l", "m"))
    assert fake.run.summary["events"] == before
    tracker.event(3, Event("k", "l", "m"))
    assert fake.run.summary["events"] == [*before, event(3, "k", "l", "m")]


@pytest.mark.parametrize(
    ("status", "code"), [("diverged", 0), ("oom", 1), ("error", 1), ("timeout", 1)]
)
def test_only_results_end_well(
    fake: SimpleNamespace, tmp_path: Path, status: str, code: int
) -> None:
    tracker = WandbTracker(WandbSettings())
    tracker.start(info(tmp_path))
    tracker.finish(status, {})
    assert fake.run.exit_code == code


@pytest.fixture
def clean_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login and no settings from outside, and home folders that are thrown away."""
    pytest.importorskip("wandb")
    for name in SAID_OUTSIDE:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


@pytest.mark.usefixtures("clean_wandb")
def test_a_real_offline_run_is_quiet_and_complete(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = WandbTracker(WandbSettings(mode="offline", project="altgrad-bench"))
    tracker.start(info(tmp_path))
    tracker.log(1, {"flips/all/stall_ratio": 0.25, "amax/all/weight": float("nan")})
    tracker.event(1, Event("rank_collapse", "layer.7", "all is one", alert=True))
    tracker.finish("ok", {"final/test/f1_micro": 0.5})
    assert capfd.readouterr() == ("", "")
    (file,) = tmp_path.glob("wandb/offline-run-*-0123456789ab/run-0123456789ab.wandb")
    parts = (
        *(b"flips/all/stall_ratio", b"amax/all/weight", b"final/test/f1_micro"),
        *(b"rank_collapse layer.7", b"all is one", b"adamw", b"e5m2_adamw_seed3", b"altgrad-bench"),
    )
    # wandb's own process writes the file, a moment later
    until(lambda: all(part in file.read_bytes() for part in parts))


@pytest.mark.usefixtures("clean_wandb")
def test_conformance_when_disabled(capfd: pytest.CaptureFixture[str]) -> None:
    check_tracker(WandbTracker(WandbSettings(mode="disabled")))
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("clean_wandb")
def test_conformance_offline() -> None:
    check_tracker(WandbTracker(WandbSettings(mode="offline")))


@pytest.mark.usefixtures("clean_wandb")
def test_online_without_a_login_fails_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # no terminal to ask at
    with pytest.raises(Exception, match=r"(?i)api key|log ?in"):
        WandbTracker(WandbSettings(mode="online")).start(info(tmp_path))


TRACKER = "altgrad_plugins.trackers.wandb"
ASK = (
    "from altgrad_core.execution.tracking import ask_trackers\n"
    "from altgrad_plugins.trackers.settings import WandbSettings\n"
    "from altgrad_plugins.trackers.wandb import WandbTracker\n"
    "ask_trackers([('wandb', WandbTracker(WandbSettings()))], print)\n"
    "print('asked')"
)


def _stand_in() -> ModuleType:
    """The module of W&B's stand-in on loopback."""
    path = Path(__file__).parents[2] / "wandb_server.py"
    spec = importlib.util.spec_from_file_location("wandb_server", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["wandb_server"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def imported() -> Iterator[Cli]:
    """Processes that have imported W&B and have not set it up."""
    with warm_cli(preloaded=("altgrad_core.execution.tracking", TRACKER, "wandb")) as running:
        yield running


@pytest.fixture
def ask(imported: Cli, clean_wandb: None) -> Callable[..., tuple[str, str]]:
    """What is printed, and the last line of the errors, when a process with these variables asks."""

    def asked(**said: str) -> tuple[str, str]:
        done = imported.run("-c", ASK, environment=said)
        return done.stdout, (done.stderr.strip().splitlines() or [""])[-1]

    return asked


def test_it_is_asked_once_whether_there_is_a_login(ask: Callable[..., tuple[str, str]]) -> None:
    out, error = ask()
    assert out == ""
    assert "the tracker 'wandb' cannot work: there is no login at W&B" in error
    assert "WANDB_MODE=offline" in error
    assert ask(WANDB_MODE="offline") == ("asked\n", "")
    stand_in = _stand_in()
    with stand_in.wandb_server() as server:
        assert ask(WANDB_BASE_URL=server.url, WANDB_API_KEY=stand_in.KEY)[0] == "asked\n"
        assert server.asked == ["Viewer"]
        out, error = ask(WANDB_BASE_URL=server.url, WANDB_API_KEY="x" * 40)
    assert out == ""
    assert "could not be verified (Failed to authenticate" in error


def test_surroundings_that_wandb_refuses_are_found_before_a_run(
    ask: Callable[..., tuple[str, str]],
) -> None:
    out, error = ask(WANDB_MODE="offline", WANDB_PROJECT="a/b")
    assert out == ""
    assert "wandb refuses its environment variables: Invalid project name 'a/b'" in error


@pytest.mark.usefixtures("clean_wandb")
def test_variables_of_wandb_take_effect(
    imported: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"MODE": "offline", "PROJECT": "p-outside", "TAGS": "t1,t2", "RUN_GROUP": "g-outside"}
    for name, value in said.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    code = (
        "import sys; from pathlib import Path\n"
        "from altgrad_core.interfaces.tracker import RunInfo\n"
        "from altgrad_plugins.trackers.settings import WandbSettings\n"
        "from altgrad_plugins.trackers.wandb import WandbTracker\n"
        "tracker = WandbTracker(WandbSettings())\n"
        "tracker.start(RunInfo('0123456789ab', 's', 'c', 1, Path(sys.argv[1]), {}))\n"
        "run = tracker._run\n"
        "print(run.offline, run.project, run.group, sorted(run.tags))\n"
        "tracker.finish('ok', {})"
    )
    done = imported.run("-c", code, tmp_path)
    assert done.stdout == "True p-outside g-outside ['t1', 't2']\n", done.stderr
