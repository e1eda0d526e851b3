"""Reading results that lie on a store."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import shelf
from waiting import until

from altgrad_core.errors import UserError
from altgrad_core.locks.lock import is_running
from altgrad_core.results.overview import read_progress
from altgrad_core.results.remote import copy
from altgrad_core.results.remote.copy import followed, local_copy
from altgrad_core.results.remote.mirror import RunMirror
from altgrad_core.results.remote.store import Store
from altgrad_core.results.run_directory import RunDirectory
from altgrad_core.results.sources import read_sources

Faults = Callable[..., None]


@pytest.fixture
def suite(tmp_path: Path, store: Store, fabricated: ModuleType) -> list[str]:
    """A suite on the shelf, and the ids of its runs."""
    folder = tmp_path / "shelf" / "bucket" / "runs" / "toy"
    ids = [
        fabricated.write_run(folder, "bf16", name, 0, lines=[fabricated.final_line(100, 0.5)])
        for name in ("adamw", "manifold_adamw")
    ]
    cells = [
        {"id": run, "condition": run, "seed": 0, "axes": {}, "skip": None, "stage": "final"}
        for run in ids
    ]
    (folder / "plan.json").write_text(json.dumps({"suite": "toy", "cells": cells}))
    for run in ids:
        (folder / run / "checkpoint").mkdir()
        (folder / run / "checkpoint" / "00000001-a.tar").write_text("large")
        (folder / run / "log.txt").write_text("long")
    return ids


@pytest.mark.parametrize("place", ["", "/toy", "/toy/ID"])
def test_a_folder_of_suites_a_suite_and_a_run_are_read_from_their_urls(
    place: str, suite: list[str]
) -> None:
    url = "shelf://bucket/runs" + place.replace("ID", suite[0])
    (found,) = read_sources(url)
    assert {run.spec.id for run in found.runs} == set(suite[:1] if "ID" in place else suite)
    for run in found.runs:
        assert run.location == f"shelf://bucket/runs/toy/{run.spec.id}"
        assert run.status.status == "ok"
        assert run.history.series["final/test/f1_micro_tuned"] == {100: 0.5}
    assert not [c for c in shelf.calls if c.startswith("cat") and c.endswith(("tar", "log.txt"))]


def test_what_has_not_changed_is_not_read_again_and_what_is_gone_goes(
    suite: list[str], store: Store
) -> None:
    folder = local_copy("shelf://bucket/runs/toy")
    shelf.calls.clear()
    local_copy("shelf://bucket/runs/toy")
    assert {call.split()[0] for call in shelf.calls} == {"ls"}
    store.write(f"toy/{suite[0]}/facts.json", b'{"new": 1}')
    store.remove([f"toy/{suite[1]}/facts.json"])
    shelf.calls.clear()
    local_copy("shelf://bucket/runs/toy")
    assert sum(call.startswith("cat") for call in shelf.calls) == 1
    assert (folder / suite[0] / "facts.json").read_text() == '{"new": 1}'
    assert not (folder / suite[1] / "facts.json").exists()


def test_names_on_a_store_that_are_none_of_ours_become_no_files(
    suite: list[str], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.find
    evil = {name: {"size": 4} for name in ("../evil", "toy/../../evil", "/evil", "a/b/c/evil")}
    evil |= {f"{name}/plan.json": {"size": 4} for name in ("..", "a/..", ".hidden", "a:b", "a\\b")}
    monkeypatch.setattr(Store, "find", lambda self, folder="": {**real(self, folder), **evil})
    local_copy("shelf://bucket/runs")
    assert not [call for call in shelf.calls if "evil" in call]
    assert not list(tmp_path.glob("cache/**/evil*"))
    assert sorted(one.name for one in (tmp_path / "cache").rglob("plan.json")) == ["plan.json"]


def test_a_file_that_is_too_large_is_refused(
    suite: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "LARGEST_FILE", 100)
    with pytest.raises(UserError, match="is larger than a file of a run may be"):
        local_copy("shelf://bucket/runs")


def test_a_store_that_is_away_or_empty_is_said(store: Store, on_shelf: Faults) -> None:
    with pytest.raises(UserError, match="shelf://bucket/runs/toy holds no results"):
        read_sources("shelf://bucket/runs/toy")
    on_shelf(gone=True)
    with pytest.raises(UserError, match="the shelf has fallen down"):
        read_sources("shelf://bucket/runs/toy")


def test_a_run_that_ends_while_it_is_copied_is_copied_whole(
    store: Store, make_run: Callable[..., RunDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = RunMirror(store, make_run("one", 4), print)
    mirror.send()
    folder = local_copy("shelf://bucket/runs/toy")
    real = Store.find

    def listed(self: Store, folder: str = "") -> dict[str, Any]:
        heartbeat = {"0123456789ab/status.json": {"size": 0}}
        before = {**real(self, folder), **heartbeat}
        make_run("one", 8, "ok")
        mirror.deliver()
        return before

    monkeypatch.setattr(Store, "find", listed)
    local_copy("shelf://bucket/runs/toy")
    assert RunDirectory(folder / "0123456789ab").has_result()


def test_a_run_under_way_elsewhere_is_running_and_one_that_is_silent_is_not(
    suite: list[str], store: Store, tmp_path: Path
) -> None:
    there = RunDirectory(tmp_path / "shelf" / "bucket" / "runs" / "toy" / suite[0])
    there.write_status(there.status().model_copy(update={"status": "running"}))
    holder = there.path / f"lock.held-{'b' * 12}-1-1-alone-00000000"
    holder.write_text("0")
    folder = local_copy("shelf://bucket/runs/toy")
    assert read_progress(folder)[0].status == "running"
    assert is_running(RunDirectory(folder / suite[0]).lock)
    os.utime(holder, (time.time() - 300, time.time() - 300))
    local_copy("shelf://bucket/runs/toy")
    assert read_progress(folder)[0].status == "interrupted"
    holder.unlink()
    local_copy("shelf://bucket/runs/toy")
    assert read_progress(folder)[0].status == "interrupted"


def test_a_copy_that_is_followed_is_brought_up_to_date_and_bears_with_faults(
    suite: list[str], store: Store, on_shelf: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "_FOLLOW_SECONDS", 0.02)
    folder = local_copy("shelf://bucket/runs/toy")
    with followed("shelf://bucket/runs/toy"):
        on_shelf(gone=True)
        time.sleep(0.1)
        on_shelf()
        store.write(f"toy/{suite[0]}/facts.json", b'{"new": 1}')
        until((folder / suite[0] / "facts.json").exists)
