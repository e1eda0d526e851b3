"""One portable file: what goes in comes out, the same bytes each time, and nothing else gets in."""

from __future__ import annotations

import json
import shlex
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from altgrad_core.cli import app
from altgrad_core.errors import UserError
from altgrad_core.results import archive
from altgrad_core.results.collect import load_curves, load_results
from altgrad_core.results.run_directory import RunDirectory
from altgrad_core.results.sources import read_one, read_sources
from altgrad_core.results.stored import StoredSuite


@pytest.fixture
def runs(fabricated: ModuleType, tmp_path: Path) -> Path:
    """A suite of four runs, one with predictions, with a checkpoint and a log in each."""
    f = fabricated
    folder = tmp_path / "runs" / "toy"

    def lines(fmt: str, optimizer: str, seed: int) -> list[str]:
        score = 0.5 + 0.01 * seed + (optimizer == "manifold_adamw") * 0.02
        return [f.line(1, "train", {"train/all/loss": 0.5}), f.final_line(100, score)]

    f.write_matrix(folder, ["e5m2"], [0, 1], lines)
    for place in folder.iterdir():
        if place.is_dir():
            (place / "checkpoint").mkdir()
            (place / "checkpoint" / "state.pt").write_bytes(b"weights")
            (place / "log.txt").write_text("a secret")
            np.savez(place / "predictions.npz", test_scores=np.eye(3))
    (folder / "tuning.json").write_text(
        json.dumps({"metric": "final/validation/f1_micro_tuned", "rates": [1, 2, 3], "seeds": [9]})
    )
    return folder


@pytest.fixture
def packed(runs: Path, tmp_path: Path) -> Path:
    target = tmp_path / "elsewhere" / "toy.zip"
    assert archive.pack(read_sources(runs), target) == 4
    return target


def test_an_archive_reads_like_the_folder(runs: Path, packed: Path) -> None:
    folder, copy = load_results(runs), load_results(packed)
    assert list(copy["directory"]) == [f"{packed}/toy/{run_id}" for run_id in copy["id"]]
    pd.testing.assert_frame_equal(copy.drop(columns="directory"), folder.drop(columns="directory"))
    names = ["train/all/loss"]
    pd.testing.assert_frame_equal(load_curves(packed, names), load_curves(runs, names))
    suite, original = read_one(packed), read_one(runs)
    assert (suite.plan, suite.tuning) == (original.plan, original.tuning)
    assert suite.path == packed.with_suffix("") / "toy"  # a report goes beside the archive


def test_no_checkpoint_and_no_log_is_packed(packed: Path) -> None:
    names = {Path(name).name for name in zipfile.ZipFile(packed).namelist()}
    assert names == {
        *("plan.json", "tuning.json", "spec.yaml", "status.json", "metrics.jsonl"),
        "predictions.npz",
    }


def test_predictions_may_be_left_out_and_what_was_found_with_them_kept(
    runs: Path, tmp_path: Path
) -> None:
    for file in runs.glob("*/predictions.npz"):
        directory = RunDirectory(file.parent)
        directory.write_status(directory.status().model_copy(update={"files": directory.digests()}))
    target = tmp_path / "small.zip"

    def draws_of(suite: StoredSuite) -> archive.Draws:
        return lambda run: {f"{suite.name}/{run.spec.seed}": np.arange(3)} if run.spec.seed else {}

    assert archive.pack(read_sources(runs), target, draws_of) == 4
    assert not [name for name in zipfile.ZipFile(target).namelist() if "predictions" in name]
    suite = read_one(target)
    assert not suite.damaged
    assert [sorted(run.resampled) for run in suite.runs] == [
        ["toy/1"] if run.spec.seed else [] for run in suite.runs
    ]
    folder, copy = load_results(runs), load_results(target)
    pd.testing.assert_frame_equal(copy.drop(columns="directory"), folder.drop(columns="directory"))


@pytest.mark.parametrize("folder", ["/home/me/runs", "my runs", "it's mine", "--runs"])
@pytest.mark.parametrize("between", [" ", "="])
def test_where_the_runs_lay_is_not_packed(
    runs: Path, tmp_path: Path, folder: str, between: str
) -> None:
    plan = json.loads((runs / "plan.json").read_text())
    given = shlex.quote(folder) if between == " " else shlex.quote(f"--runs={folder}")
    typed = (
        f"altgrad-bench run toy.yaml --runs {given}"
        if between == " "
        else f"altgrad-bench run toy.yaml {given}"
    )
    plan["command"] = f"{typed} --workers 2\naltgrad-bench run toy.yaml"
    (runs / "plan.json").write_text(json.dumps(plan))
    archive.pack(read_sources(runs), tmp_path / "toy.zip")
    packed = read_one(tmp_path / "toy.zip").plan
    original = read_one(runs).plan
    assert packed is not None
    assert original is not None
    assert packed.command == "altgrad-bench run toy.yaml --workers 2\naltgrad-bench run toy.yaml"
    assert packed == original.model_copy(update={"command": packed.command})


def test_the_same_results_give_the_same_bytes(runs: Path, packed: Path, tmp_path: Path) -> None:
    for file in runs.rglob("*"):
        file.touch()
    archive.pack(read_sources(runs), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_an_archive_can_be_packed_again(packed: Path, tmp_path: Path) -> None:
    assert archive.pack(read_sources(packed), tmp_path / "copy.zip") == 4
    assert (tmp_path / "copy.zip").read_bytes() == packed.read_bytes()


def test_two_suites_of_one_name_are_not_mixed(runs: Path, packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pack each by itself"):
        archive.pack((*read_sources(runs), *read_sources(packed)), tmp_path / "both.zip")


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("../evil", b"x", "no file of a run"),
        ("/etc/passwd", b"x", "no file of a run"),
        ("toy/../../status.json", b"x", "no file of a run"),
        ("toy/0123456789ab/checkpoint/state.pt", b"x", "no file of a run"),
        ("toy\\0123456789ab/spec.yaml", b"x", "no file of a run"),
        (".hidden/plan.json", b"x", "no file of a run"),
        ("TOY/PLAN.JSON", b"x", "two files of one name"),
        ("toy/0123456789ab/metrics.jsonl", b"\n" * 2000, "is too large"),
    ],
)
def test_what_is_no_record_is_refused(
    runs: Path, packed: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, fault: str
) -> None:
    monkeypatch.setattr(archive, "LARGEST_FILE", 1999)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(zipfile.ZipInfo(name) if "\\" not in name else name, data)
    with pytest.raises(UserError, match=fault):
        load_results(packed)


@pytest.mark.parametrize("cut", [0, 10, 0.5, -30])
def test_a_damaged_archive_is_one_sentence(packed: Path, cut: float) -> None:
    data = packed.read_bytes()
    packed.write_bytes(data[: int(cut * len(data)) if 0 < cut < 1 else int(cut)])
    with pytest.raises(UserError, match="no whole archive of results"):
        load_results(packed)


def test_every_flipped_byte_is_data_or_a_user_error(packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    for place in np.random.default_rng(0).integers(len(data), size=60):
        changed = bytearray(data)
        changed[place] ^= 0x55
        packed.write_bytes(changed)
        try:
            load_results(packed)
        except UserError:
            continue


def test_the_command_packs_and_the_others_read(runs: Path, tmp_path: Path) -> None:
    target = tmp_path / "toy.zip"
    done = CliRunner().invoke(app, ["pack", "toy", "--runs", str(runs.parent), "-o", str(target)])
    assert done.exit_code == 0, done.output
    assert "4 runs" in done.output
    whole = CliRunner().invoke(app, ["pack", str(runs.parent), "-o", str(tmp_path / "all.zip")])
    assert whole.exit_code == 0
    assert (tmp_path / "all.zip").read_bytes() == target.read_bytes()
    out = tmp_path / "report"
    done = CliRunner().invoke(app, ["report", str(target), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert (out / "report.md").is_file()
    done = CliRunner().invoke(app, ["status", str(target)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"toy ({target})")
    assert "4 ok" in done.output


def test_the_dashboard_serves_an_archive(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "toy.zip"
    archive.pack(read_sources(runs), target)
    served: list[Path] = []
    monkeypatch.setattr(
        "altgrad_core.report.live.server.serve", lambda folder, *_, **__: served.append(folder)
    )
    done = CliRunner().invoke(app, ["dashboard", str(target)])
    assert done.exit_code == 0, done.output
    (folder,) = served
    assert (folder / "plan.json").read_bytes() == (runs / "plan.json").read_bytes()


def test_an_archive_has_its_suffix(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends with \.zip"):
        archive.pack(read_sources(runs), tmp_path / "toy.tar")
