"""Two machines and a store between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import shelf

from altgrad_core.results.remote import lease
from altgrad_core.results.remote.store import Store, open_store
from altgrad_core.results.run_directory import FINISHED, Record, RunDirectory, Status

ID = "0123456789ab"


@pytest.fixture
def on_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the store faults, or none."""
    monkeypatch.setenv("SHELF", str(tmp_path / "shelf"))
    monkeypatch.setenv("ALTGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("altgrad_core.results.remote.store.PAUSES", (0.0,))
    (tmp_path / "shelf").mkdir()
    shelf.calls.clear()

    def faults(**given: Any) -> None:
        (tmp_path / "shelf.json").write_text(json.dumps(given))

    return faults


@pytest.fixture
def store(on_shelf: Callable[..., None]) -> Store:
    return open_store("shelf://bucket/runs")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Beats of a twentieth of a second, and silences that a busy machine does not make."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(lease, "WATCHED_SECONDS", 0.2)
    monkeypatch.setattr(lease, "_hearts", hearts := lease._Hearts())
    yield
    hearts._stop.set()
    if hearts._thread is not None:
        hearts._thread.join(60)  # or its last beat falls into the next test's folder
        assert not hearts._thread.is_alive()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this process one of another machine."""

    def be(name: str) -> None:
        for module in ("altgrad_core.locks.lease", "altgrad_core.results.remote.lease"):
            monkeypatch.setattr(f"{module}.machine", lambda: name * 12)

    return be


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """A run on one machine, as far as ``steps``, with a checkpoint or a result."""

    def make(machine: str, steps: int, status: str = "running") -> RunDirectory:
        directory = RunDirectory(tmp_path / machine / "toy" / ID)
        directory.create("id: " + ID)
        lines = [Record(step=n, kind="train", metrics={"loss": 1 / n}) for n in range(1, steps + 1)]
        if status == "ok":
            lines.append(Record(step=steps, kind="final", metrics={"f1": 0.5}))
        directory.metrics.write_text("".join(f"{one.to_json()}\n" for one in lines))
        directory.environment.write_text("{}")
        directory.facts.write_text("{}")
        directory.log.write_text(f"{steps} steps on {machine}\n")
        if status in FINISHED:
            directory.checkpoint.unlink(missing_ok=True)
        else:
            directory.checkpoint.write_text(f"altgrad checkpoint sha256:{steps}\n{'.' * 20_000}")
        ended = {"record": directory.record_digest(), "files": directory.digests()}
        directory.write_status(
            Status(
                status=status,  # type: ignore[arg-type]
                step=steps,
                started=1.0,
                **(ended if status == "ok" else {}),  # type: ignore[arg-type]
            )
        )
        return directory

    return make
