"""Results out of W&B: wandb's own client against a stand-in of its server, beside run directories."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import yaml

from altgrad_core.analysis.find import find
from altgrad_core.errors import UserError
from altgrad_core.results.collect import load_curves, load_results
from altgrad_core.results.sources import read_one
from altgrad_plugins.trackers.wandb_source import read_wandb

TESTS = Path(__file__).parents[2]
NAMES = ["train/all/loss", "rank/encoder.layer.0.weight/stable_rank", "flips/all/stall_ratio"]


@pytest.fixture(scope="module")
def stand_in() -> ModuleType:
    pytest.importorskip("wandb")
    return importlib.import_module("wandb_server")


@pytest.fixture(scope="module")
def server(stand_in: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running stand-in, which wandb in this process and its children takes for W&B."""
    import wandb

    home = str(tmp_path_factory.mktemp("home"))
    with stand_in.wandb_server() as running, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, home)
        patch.setenv("WANDB_BASE_URL", running.url)
        patch.setenv("WANDB_API_KEY", stand_in.KEY)
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        wandb.teardown()  # settings that an earlier test has left behind
        yield running
        wandb.teardown()


@pytest.fixture
def project(request: pytest.FixtureRequest, server: Any) -> Iterator[str]:
    """The name of an empty project of this test's own."""
    name = re.sub(r"\W+", "-", request.node.name)
    server.projects[name] = {}
    server.asked.clear()
    yield name
    server.broken.clear()


@pytest.fixture
def folder(fabricated: ModuleType, tmp_path: Path) -> Path:
    """A suite with everything that a run can hold: see the comments."""
    f, place = fabricated, tmp_path / "runs" / "toy"
    axes = [
        # the order of keys is the order of the columns, and 1.0 is not 1
        {"quantization.format": "e5m2", "optimizer.type": optimizer, "optimizer.eps": 1.0}
        for optimizer in ("manifold_adamw", "adamw")
    ]
    environment = {"device": "cpu", "device_name": "A chip", "packages": {"torch": "2.13.0"}}
    facts = {"data": {"labels": 3, "mean": 2.0, "names": ["ä", "b.c"]}, "quantization": {"a.b": 1}}
    ok = f.write_run(
        place,
        "e5m2",
        "manifold_adamw",
        0,
        axes=axes[0],
        lines=[
            f.line(1, "train", {"train/all/loss": 0.1 + 0.2, "train/all/learning_rate": 1e-3}),
            f.monitor_line(1, rank__all__stable_rank=8.0, flips__all__stall_ratio=math.nan),
            f.line(1, "monitor", {"rank/encoder.layer.0.weight/stable_rank": 5.0}),
            f.event_line(2, "rank_collapse", "encoder.layer.0.weight", "below 0.5"),
            f.line(10, "train", {"train/all/loss": 1.0}),
            f.monitor_line(10, rank__all__stable_rank=-math.inf, flips__all__stall_ratio=0.25),
            f.line(10, "evaluation", {"validation/all/f1_micro": 1 / 3}),
            f.final_line(100, 0.7512345678901234),
        ],
        environment=environment,
        facts=facts,
    )
    bad = f.write_run(
        place,
        "e5m2",
        "adamw",
        0,
        axes=axes[1],
        lines=[
            f.line(1, "train", {"train/all/loss": 0.5}),
            f.line(9, "train", {"train/all/loss": math.inf}),
            f.event_line(11, "diverged", "all", "loss was inf"),
        ],
        status="diverged",
        message="loss was inf",
        step=11,
        environment=environment,
        facts=facts,
    )
    failed = f.write_run(
        place,
        "bf16",
        "adamw",
        0,
        lines=[f.line(1, "train", {"train/all/loss": 0.5})],
        status="oom",
        message="out of memory",
        step=5,
        environment=environment,
    )
    f.write_run(place, "e4m3", "adamw", 0)  # of other settings: the plan does not ask for it
    cells = [
        f.cell("e5m2", "manifold_adamw", 0, ok) | {"axes": axes[0]},
        f.cell("e5m2", "adamw", 0, bad) | {"axes": axes[1]},
        f.cell("bf16", "adamw", 0, failed),
        f.cell("e7m0", "adamw", 0, None, skip="no such plugin"),
        f.cell("bf16", "manifold_adamw", 0, "f" * 12) | {"stage": "tune"},
    ]
    f.write_plan(place, cells, margin=0.01)
    tuned = {"scores": {"0.001": [0.5]}, "chosen": 0.001, "censored": True}
    tuning = {"metric": "m", "rates": [0.001], "seeds": [7], "conditions": {"e5m2_adamw": tuned}}
    (place / "tuning.json").write_text(json.dumps(tuning))
    return place


def store(server: Any, stand_in: ModuleType, project: str, folder: Path) -> dict[str, Any]:
    """Put run directories into the stand-in as the tracker's documentation says; the runs by id."""
    runs = server.projects[project]
    for place in sorted(path.parent for path in folder.glob("*/spec.yaml")):
        spec = yaml.safe_load((place / "spec.yaml").read_text())
        status = read(place / "status.json")
        run = runs[place.name] = stand_in.Run(place.name, group=spec["suite"])
        start = {
            "time": 1.0,
            "spec": spec,
            "plan": read(folder / "plan.json"),
            "tuning": read(folder / "tuning.json"),
            "environment": read(place / "environment.json"),
        }
        run.set_config({**spec, "altgrad_bench": json.dumps(start)})
        end = {"status": status, "facts": read(place / "facts.json")}
        summary: dict[str, Any] = {"altgrad_bench": json.dumps(end), "status": status["status"]}
        for line in (place / "metrics.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record["kind"] == "event":
                summary.setdefault("events", []).append({"step": record["step"], **record["event"]})
                continue
            if not run.rows or run.rows[-1]["_step"] != record["step"]:
                run.rows.append({"_step": record["step"], "_timestamp": 1.5})
            run.rows[-1] |= {name: float(value) for name, value in record["metrics"].items()}
            summary |= record["metrics"]
        run.summary = json.dumps({**summary, "_runtime": 99.0, "_step": 100})
        run.state = "finished" if status["status"] in ("ok", "diverged") else "failed"
    return dict(runs)


def read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else {}


def without_place(table: pd.DataFrame) -> pd.DataFrame:
    """The table but for where each run is kept: the one column that cannot be the same."""
    return table.drop(columns="directory")


def assert_the_same(project: str, folder: Path, server: Any) -> None:
    source = f"wandb:team/{project}"
    here, there = load_results(folder), load_results(source)
    pd.testing.assert_frame_equal(without_place(there), without_place(here), check_exact=True)
    pages = [
        f"{server.url}/team/{project}/runs/{i}" if d else ""
        for i, d in zip(here["id"], here["directory"], strict=True)
    ]
    assert there["directory"].tolist() == pages
    pd.testing.assert_frame_equal(
        load_curves(source, NAMES), load_curves(folder, NAMES), check_exact=True
    )
    local, remote = read_one(folder), read_one(source)
    assert remote.plan == local.plan
    assert remote.tuning == local.tuning
    for a, b in zip(remote.runs, local.runs, strict=True):
        assert a.spec == b.spec
        assert a.history.events == b.history.events
        assert a.history.kinds == b.history.kinds
        assert json.dumps(a.environment) == json.dumps(b.environment)
        assert json.dumps(a.facts) == json.dumps(b.facts)


@pytest.mark.parametrize("parquet", [False, True])
def test_the_same_tables_out_of_w_and_b_as_out_of_run_directories(
    server: Any, stand_in: ModuleType, project: str, folder: Path, parquet: bool
) -> None:
    for run in store(server, stand_in, project, folder).values():
        run.parquet = parquet
    assert_the_same(project, folder, server)
    assert ("HistoryPage" in server.asked) != parquet
    assert server.asked.count("Runs") > 1  # several pages


@pytest.mark.slow
def test_what_the_tracker_logs_comes_back(server: Any, project: str, folder: Path) -> None:
    for place in folder.glob("*/spec.yaml"):
        if not (place.parent / "metrics.jsonl").read_text():
            (place.parent / "spec.yaml").unlink()  # a run that never began told no tracker
    script = [sys.executable, str(TESTS / "wandb_upload.py"), str(folder), project, "0"]
    subprocess.run(script, check=True, timeout=120)
    assert len(server.projects[project]) == 3
    assert_the_same(project, folder, server)


@pytest.mark.slow
def test_a_run_that_goes_on_after_an_interruption(
    server: Any, project: str, folder: Path, fabricated: ModuleType
) -> None:
    f, failed = (
        fabricated,
        next(p.parent for p in folder.glob("*/status.json") if "oom" in p.read_text()),
    )
    first = [f.line(1, "train", {"train/all/loss": 0.5}), f.event_line(1, "k", "l", "early")]
    (failed / "metrics.jsonl").write_text("\n".join(first))
    script = [sys.executable, str(TESTS / "wandb_upload.py"), str(folder), project]
    subprocess.run([*script, "0", failed.name], check=True, timeout=120)
    again = [*first, f.event_line(9, "k", "l", "late"), f.final_line(100, 0.5)]
    (failed / "metrics.jsonl").write_text("\n".join(again))
    state = {"status": "ok", "message": "", "step": 100, "max_steps": 100, "seconds": 20.0}
    (failed / "status.json").write_text(json.dumps(state))
    subprocess.run([*script, "1", failed.name], check=True, timeout=120)
    (there,) = (run for run in read_one(f"wandb:team/{project}").runs)
    (here,) = (run for run in read_one(folder).runs if run.spec.id == failed.name)
    assert there.history.series == here.history.series
    assert there.history.events == here.history.events
    assert there.status == here.status


def test_the_findings_are_the_same(
    server: Any, stand_in: ModuleType, project: str, fabricated: ModuleType, tmp_path: Path
) -> None:
    f, folder = fabricated, tmp_path / "toy"

    def lines(fmt: str, optimizer: str, seed: int) -> list[str]:
        score = 0.5 + 0.01 * seed + (0.05 if optimizer == "manifold_adamw" and fmt == "e5m2" else 0)
        train = f.line(1, "train", {"train/all/loss": 0.3 + seed})
        return [train, f.final_line(100, score)]

    f.write_matrix(folder, ["bf16", "e5m2"], [0, 1, 2], lines)
    store(server, stand_in, project, folder)
    here, there = find(read_one(folder)), find(read_one(f"wandb:team/{project}/toy"))
    assert len(here.effects) == 2
    for name in ("effects", "pairs", "conditions", "curves"):
        mine, theirs = getattr(here, name), getattr(there, name)
        pd.testing.assert_frame_equal(theirs, mine, check_exact=True)
    assert there.verdict == here.verdict


def as_before(run: Any) -> None:
    """Make of a stored run one that a tracker without the two texts has written."""
    config = run.read_config()
    del config["altgrad_bench"]
    run.set_config(config)
    summary = json.loads(run.summary)
    del summary["altgrad_bench"]
    run.summary = json.dumps(summary)


LOST = {
    *("directory", "device", "seconds", "message", "planned", "stage"),
    *("threads", "versions", "environment"),
}
"""Columns that are not known of runs of a tracker that left no texts."""


def test_runs_without_the_trackers_texts(
    server: Any, stand_in: ModuleType, project: str, folder: Path
) -> None:
    for run in store(server, stand_in, project, folder).values():
        as_before(run)
    source = f"wandb:team/{project}"
    here, there = load_results(folder), load_results(source)
    started = here[here["directory"] != ""].set_index("id").sort_index()
    there = there.set_index("id").sort_index()
    kept = [name for name in started if name not in {*LOST, "step"}]
    pd.testing.assert_frame_equal(there[kept], started[kept], check_dtype=False, check_exact=True)
    assert set(there["seconds"]) == {99.0}  # W&B's own clock
    assert there["planned"].all()
    assert set(there["device"]) == {""}
    ended = there.loc[started["status"] == "diverged"]
    assert ended[["step", "message"]].to_numpy().tolist() == [[11, "loss was inf"]]
    suite = read_one(source)
    assert suite.plan is not None
    assert suite.plan.contrast is not None
    assert suite.plan.contrast.axis == "optimizer.type"
    assert any("holds no plan" in note for note in suite.notes)


@pytest.mark.parametrize(
    ("state", "summary", "status", "message"),
    [
        ("running", {"status": "error"}, "running", ""),
        ("crashed", {}, "killed", "W&B calls the run 'crashed'"),
        ("killed", {"status": "timeout"}, "timeout", ""),
        ("finished", {"status": "ok"}, "ok", ""),
    ],
)
def test_how_a_run_stands_that_left_no_status(
    server: Any,
    stand_in: ModuleType,
    project: str,
    folder: Path,
    state: str,
    summary: dict[str, Any],
    status: str,
    message: str,
) -> None:
    runs = store(server, stand_in, project, folder)
    run = next(run for run in runs.values() if "bf16" in run.config)
    server.projects[project] = {run.name: run}
    run.state, run.summary = state, json.dumps(summary)
    row = load_results(f"wandb:team/{project}").set_index("id").loc[run.name]
    assert (row["status"], row["message"], row["step"]) == (status, message, 1)


def test_a_summary_completes_a_history_that_lost_its_last_row(
    server: Any, stand_in: ModuleType, project: str, folder: Path
) -> None:
    for run in store(server, stand_in, project, folder).values():
        run.rows = run.rows[:1]
    finals = [name for name in load_results(folder) if name.startswith("final/")]
    there = load_results(f"wandb:team/{project}")
    pd.testing.assert_frame_equal(there[finals], load_results(folder)[finals], check_exact=True)


def test_events_that_were_too_many_are_a_note(
    server: Any, stand_in: ModuleType, project: str, folder: Path
) -> None:
    run = next(iter(store(server, stand_in, project, folder).values()))
    run.summary = json.dumps({**json.loads(run.summary), "events_left_out": 12})
    assert any("lacks 12 events" in note for note in read_one(f"wandb:team/{project}").notes)


def test_a_run_that_was_done_again_is_not_taken_from_the_cache(
    server: Any, stand_in: ModuleType, project: str, folder: Path
) -> None:
    for run in store(server, stand_in, project, folder).values():
        run.parquet = True
    source = f"wandb:team/{project}"
    before = load_curves(source, ["train/all/loss"])["value"].tolist()
    for run in server.projects[project].values():
        for row in run.rows:
            row |= {"train/all/loss": 42.0} if "train/all/loss" in row else {}
    after = load_curves(source, ["train/all/loss"])["value"].tolist()
    assert set(after) == {42.0}
    assert len(after) == len(before)


def test_one_suite_of_a_project_and_runs_of_others(
    server: Any, stand_in: ModuleType, project: str, folder: Path, fabricated: ModuleType
) -> None:
    other = folder.parent / "other"
    fabricated.write_run(other, "e4m3", "adamw", 1, suite="other")
    store(server, stand_in, project, folder)
    store(server, stand_in, project, other)
    foreign = server.projects[project]["abc"] = stand_in.Run("abc")
    foreign.set_config({"lr": 0.1})
    source = f"wandb:team/{project}"
    assert [suite.name for suite in read_wandb(source.removeprefix("wandb:"))] == ["other", "toy"]
    assert load_results(f"{source}/other")["condition"].tolist() == ["e4m3_adamw"]
    assert "abc" not in load_results(source)["id"].tolist()
    assert read_one(f"{source}/toy").notes == (
        f"1 of the 6 runs of {source} are not altgrad-bench's.",
    )
    with pytest.raises(UserError, match=f"Name one of: {source}/other, {source}/toy"):
        read_one(source)
    with pytest.raises(UserError, match="has no suite 'toys'; it has other, toy"):
        read_one(f"{source}/toys")


@pytest.mark.parametrize("source", ["wandb:", "wandb:team", "wandb:a/b/c/d", "wandb:team//toy"])
def test_a_source_in_the_wrong_form(source: str) -> None:
    with pytest.raises(UserError, match="names no W&B project: write wandb:ENTITY/PROJECT"):
        load_results(source)


def test_no_such_project(server: Any) -> None:
    with pytest.raises(UserError, match="no project 'nowhere' of 'team' at W&B, or this login"):
        load_results("wandb:team/nowhere")


def test_an_empty_project(server: Any, project: str) -> None:
    with pytest.raises(UserError, match="holds no runs"):
        load_results(f"wandb:team/{project}")


def test_a_project_of_others_only(server: Any, stand_in: ModuleType, project: str) -> None:
    run = server.projects[project]["abc"] = stand_in.Run("abc")
    run.set_config({"lr": 0.1})
    with pytest.raises(UserError, match=r"no run that this version can read\. 1 of the 1 runs"):
        load_results(f"wandb:team/{project}")


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Any], None]:
    """Changes what the tracker's text of the start holds."""

    def edit(run: Any) -> None:
        config = run.read_config()
        start = json.loads(config["altgrad_bench"])
        change(start)
        run.set_config({**config, "altgrad_bench": json.dumps(start)})

    return edit


def test_runs_of_another_layout(
    server: Any, stand_in: ModuleType, project: str, folder: Path
) -> None:
    for run in store(server, stand_in, project, folder).values():
        edited(lambda start: start["spec"].update(layout=99))(run)
    with pytest.raises(UserError, match=r"have the layout 99 of another version.*reads layout 1"):
        load_results(f"wandb:team/{project}")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (edited(lambda start: start["spec"].pop("training")), "training: Field required"),
        (edited(lambda start: start.update(spec=[1])), "holds no settings"),
        (edited(lambda start: start.update(plan={"cells": 1})), "suite: Field required"),
        (lambda run: run.set_config({"altgrad_bench": "{half"}), "altgrad_bench: "),
        (lambda run: run.set_config({"altgrad_bench": 7}), "altgrad_bench: "),
    ],
)
def test_a_damaged_run_is_named(
    server: Any,
    stand_in: ModuleType,
    project: str,
    folder: Path,
    damage: Callable[[Any], None],
    reason: str,
) -> None:
    runs = store(server, stand_in, project, folder)
    run = runs[sorted(runs)[-1]]
    edited(lambda start: start.update(time=9.0))(run)  # the newest, whose plan is taken
    damage(run)
    with pytest.raises(UserError, match=reason) as caught:
        load_results(f"wandb:team/{project}")
    assert f"{server.url}/team/{project}/runs/{run.name}" in str(caught.value)


def test_no_login(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    import wandb

    wandb.teardown()
    with pytest.raises(UserError, match=r"no login to W&B.*wandb login.*WANDB_API_KEY"):
        load_results("wandb:team/any")


def test_a_login_that_is_refused(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "9" * 40)
    with pytest.raises(UserError, match=r"refuses this login for wandb:team/any \(.*not logged in"):
        load_results("wandb:team/any")


def test_no_network(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("altgrad_plugins.trackers.wandb_source._TIMEOUT", 1)
    with pytest.raises(UserError, match=r"no answer for wandb:team/any .*127\.0\.0\.1:9.*network"):
        load_results("wandb:team/any")


@pytest.mark.parametrize(
    ("operation", "said"),
    [("Runs", "no answer for"), ("RunParquetHistory", r"history of the W&B run http://.* cannot")],
)
def test_a_server_that_fails_on_the_way(
    server: Any, stand_in: ModuleType, project: str, folder: Path, operation: str, said: str
) -> None:
    store(server, stand_in, project, folder)
    server.broken.add(operation)
    with pytest.raises(UserError, match=said):
        load_results(f"wandb:team/{project}")
