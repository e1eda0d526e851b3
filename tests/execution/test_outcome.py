"""Every end of a worker becomes a status: from inside where it can still speak, from outside where not."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from altgrad_core.errors import UserError
from altgrad_core.execution import worker
from altgrad_core.execution.outcome import HELD, status_after_exit
from altgrad_core.execution.recorder import RunRecorder
from altgrad_core.interfaces.executor import Exit
from altgrad_core.locks.lock import run_lock
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.spec_file import dump_spec
from altgrad_core.planning.suite import load_suite
from altgrad_core.registry.catalog import Catalog
from altgrad_core.results.run_directory import RunDirectory, Status
from altgrad_core.training.divergence import Diverged
from altgrad_core.training.loop import Result


@pytest.fixture
def directory(write_suite: Callable[..., Path], tmp_path: Path) -> RunDirectory:
    spec = plan_suite(load_suite(write_suite())).specs[0]
    made = RunDirectory(tmp_path / spec.id)
    made.create(dump_spec(spec))
    return made


def ends(error: BaseException | Result) -> Callable[..., Result]:
    def train(*_: Any) -> Result:
        if isinstance(error, BaseException):
            raise error
        return error

    return train


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("end", "status", "code", "words"),
    [
        (Result(12), "ok", 0, ""),
        (Result(6, stopped="monitor x: enough"), "ok", 0, "enough"),
        (Diverged(9, 7, "parameter a.weight"), "diverged", 0, "from step 7 on"),
        (UserError("no data; give data.path"), "error", 2, "give data.path"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried…\nmore"),
            "oom",
            1,
            "CUDA out of memory",
        ),
        (MemoryError(), "oom", 1, "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "oom", 1, "Cannot allocate memory"),
        (RuntimeError("CUDA error: out of memory\nkernel"), "oom", 1, "CUDA error: out of memory"),
        (caused(ValueError("no batch"), MemoryError()), "oom", 1, "no batch"),
        (OSError(errno.ENOSPC, "full", "x/metrics.jsonl"), "error", 2, "x/metrics.jsonl"),
        (OSError(errno.EIO, "broken"), "error", 1, "OSError"),
        (ValueError("a defect"), "error", 1, "ValueError: a defect"),
    ],
)
def test_what_the_worker_says_of_its_own_end(
    directory: RunDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: BaseException | Result,
    status: str,
    code: int,
    words: str,
) -> None:
    directory.checkpoint.write_bytes(b"state")
    monkeypatch.setattr(worker, "_train", ends(end))
    assert worker.run_worker(directory.path, "cpu", tmp_path / "cache") == code
    found = directory.status()
    assert (found.status, words in found.message) == (status, True)
    assert "\n" not in found.message
    # A run without a result keeps what it can go on from.
    assert directory.checkpoint.exists() == (status not in ("ok", "diverged"))


def test_a_run_that_is_finished_is_not_run_again(
    directory: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another suite's worker finished it between this one's plan and its lock."""
    directory.write_status(Status(status="diverged", step=12))
    monkeypatch.setattr(worker, "_train", ends(AssertionError("trained twice")))
    assert worker.run_worker(directory.path, "cpu", tmp_path / "cache") == 0
    assert (directory.status().status, directory.status().step) == ("diverged", 12)


def test_a_run_in_other_hands_is_left_alone(directory: RunDirectory, tmp_path: Path) -> None:
    directory.write_status(Status(status="running", step=7))
    arguments = [str(directory.path), "--device", "cpu", "--cache", str(tmp_path / "cache")]
    with run_lock(directory.lock):
        assert worker.main(arguments) == HELD
    assert (directory.status().status, directory.status().step) == ("running", 7)


def test_files_that_were_cut_off_are_removed(
    directory: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = directory.checkpoint.with_name(".state.pt.x7f3")
    cut.write_bytes(b"half a checkp")
    monkeypatch.setattr(worker, "_train", ends(Result(12)))
    worker.run_worker(directory.path, "cpu", tmp_path / "cache")
    assert not cut.exists()


def test_data_that_were_replaced_are_not_trained_under_the_old_id(
    tiny_acts: Path, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    acts = shutil.copytree(tiny_acts, tmp_path / "acts")
    data = {"dataset": "eurlex", "path": str(acts), "vocab_size": 200}
    spec = plan_suite(load_suite(write_suite(data=data))).specs[0]
    directory = RunDirectory(tmp_path / spec.id)
    directory.create(dump_spec(spec))
    shutil.copy(acts / "test.jsonl.gz", acts / "train.jsonl.gz")
    assert worker.run_worker(directory.path, "cpu", tmp_path / "cache") == 2
    status = directory.status()
    assert status.status == "error"
    assert "data of eurlex changed after the run was planned" in status.message
    assert spec.fingerprint["data"] in status.message
    assert not directory.predictions.exists()


def test_data_that_are_replaced_while_they_are_read_are_noticed(
    write_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = plan_suite(load_suite(write_suite())).specs[0]
    directory = RunDirectory(tmp_path / spec.id)
    directory.create(dump_spec(spec))
    answers = [dict(spec.fingerprint), {"data": "sha256:another"}]
    monkeypatch.setattr(Catalog, "fingerprint", lambda *_: answers.pop(0))
    assert worker.run_worker(directory.path, "cpu", tmp_path / "cache") == 2
    assert "is sha256:another" in directory.status().message
    assert answers == []


@pytest.mark.parametrize(
    ("before", "end", "status", "words"),
    [
        ("running", Exit(-9), "killed", "SIGKILL"),
        ("running", Exit(-15), "killed", "SIGTERM"),
        ("running", Exit(-15, timed_out=True), "timeout", "time"),
        ("running", Exit(-15, stalled=True), "timeout", "no sign of life"),
        ("running", Exit(127, failed="no process: no memory"), "error", "no process: no memory"),
        ("running", Exit(1), "error", "last words"),
        ("pending", Exit(3), "error", "exit code 3"),
        ("oom", Exit(1), "oom", ""),
        ("ok", Exit(-9), "ok", ""),
    ],
)
def test_what_the_parent_makes_of_it(
    directory: RunDirectory, before: Any, end: Exit, status: str, words: str
) -> None:
    directory.write_status(Status(status=before, step=4))
    directory.log.write_text("first\nlast words\n")
    found = status_after_exit(directory, end)
    assert (found.status, found.step) == (status, 4)
    assert words in found.message


def test_a_run_that_goes_on_elsewhere_says_so_and_keeps_what_it_began_on(
    directory: RunDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def killed(recorder: Any, step: int) -> None:
        if step == 6:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(RunRecorder, "progress", killed)
        assert worker.run_worker(directory.path, "cpu", tmp_path / "cache") == 1
    assert directory.checkpoint.exists()
    elsewhere = worker.describe_environment(torch.device("cpu"), {}) | {"python": "3.99"}
    monkeypatch.setattr(worker, "describe_environment", lambda *_: elsewhere)
    assert worker.run_worker(directory.path, "cpu", tmp_path / "cache") == 0
    kept = json.loads(directory.environment.read_text())
    assert [kept["step"], *(one["step"] for one in kept["earlier"])] == [4, 0]
    (note,) = directory.status().notes
    assert "from step 4 on 3.99" in note
    assert f"warning: {note}" in capsys.readouterr().out


def test_a_spec_that_was_changed_under_its_id_is_not_run(
    directory: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = directory.spec.read_text()
    directory.spec.write_text(text.replace("learning_rate: 0.001", "learning_rate: 0.01"))
    assert directory.spec.read_text() != text
    arguments = [str(directory.path), "--device", "cpu", "--cache", str(tmp_path / "cache")]
    assert worker.main(arguments) == 2
    assert "was changed after it was written: it stands under the id" in capsys.readouterr().err
    assert not directory.metrics.exists()
