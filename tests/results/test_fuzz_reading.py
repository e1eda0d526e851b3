"""Whatever lies in a folder of runs or an archive: it is read, or refused with a ``UserError``."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from fuzzing import fuzzed, harmed, json_values, randoms, replaced
from hypothesis import given
from rich.console import Console

from altgrad_core.cli_status import print_status, status_data
from altgrad_core.errors import UserError
from altgrad_core.planning.spec_file import load_spec
from altgrad_core.results.archive import pack, read_archive
from altgrad_core.results.collect import results_table
from altgrad_core.results.run_directory import RunDirectory
from altgrad_core.results.stored import StoredSuite, read_suites


@pytest.fixture(scope="module")
def whole(fabricated: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of two runs, with every file that a run may have."""
    folder = tmp_path_factory.mktemp("whole") / "toy"
    f = fabricated

    def lines(fmt: str, optimizer: str, seed: int) -> list[str]:
        monitor = f.monitor_line(1, rank__all__stable_rank=3.0)
        event = f.event_line(1, "stall", "layer", "it stalls")
        return [f.line(1, "train", {"train/all/loss": 0.5}), monitor, event, f.final_line(100, 0.5)]

    f.write_matrix(folder, ["e5m2"], [0], lines)
    tuned = {"scores": {"0.1": [0.5]}, "chosen": 0.1, "censored": False}
    tuning = {"metric": "m", "rates": [0.1], "seeds": [9], "conditions": {"e5m2_adamw": tuned}}
    (folder / "tuning.json").write_text(json.dumps(tuning))
    for place in folder.iterdir():
        if place.is_dir():
            np.savez_compressed(place / "predictions.npz", test_scores=np.eye(3))
            environment = {"device": "cpu", "threads": 1, "packages": {"torch": "2"}, "step": 4}
            attempts = {"earlier": [{**environment, "step": 0}]}
            (place / "environment.json").write_text(json.dumps(environment | attempts))
            (place / "facts.json").write_text(json.dumps({"data": {"examples": {"train": 3}}}))
            directory = RunDirectory(place)
            status = directory.status()
            update = {"record": directory.record_digest(), "files": directory.digests()}
            directory.write_status(status.model_copy(update=update))
    return folder


@pytest.fixture(scope="module")
def victim(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("victim")


def use(suites: tuple[StoredSuite, ...]) -> None:
    """What commands do with results that were read."""
    results_table(suites)
    for suite in suites:
        assert suite.name
        with contextlib.suppress(UserError):
            _ = suite.metrics
        for run in suite.runs:
            run.predictions("test")


def read(folder: Path) -> None:
    """Everything that reads a folder of runs; each either answers or raises ``UserError``."""
    with contextlib.suppress(UserError):
        use(read_suites(folder))
    with contextlib.suppress(UserError):
        json.dumps(status_data(folder, "toy"))
    with contextlib.suppress(UserError):
        print_status(folder, "toy", Console(file=io.StringIO(), width=100))
    for place in folder.iterdir():
        if place.is_dir():
            directory = RunDirectory(place)
            directory.has_result()
            with contextlib.suppress(UserError):
                load_spec(directory.spec)
            with contextlib.suppress(UserError):
                read_suites(place)


def unvouched(folder: Path) -> None:
    """Take the digests away, so that what is harmed is looked into, as in results of older versions."""
    for path in folder.rglob("status.json"):
        status = json.loads(path.read_text())
        path.write_text(json.dumps({**status, "record": None, "files": {}}))


def fresh(whole: Path, victim: Path, draw: random.Random) -> tuple[Path, Path]:
    """A copy of the suite, and one file in it."""
    folder = victim / "toy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    if draw.random() < 0.7:
        unvouched(folder)
    return folder, draw.choice(sorted(p for p in folder.rglob("*") if p.is_file()))


@fuzzed(30)
@given(randoms)
def test_harmed_bytes_of_any_file(whole: Path, victim: Path, draw: random.Random) -> None:
    folder, file = fresh(whole, victim, draw)
    file.write_bytes(harmed(file.read_bytes(), draw))
    read(folder)


@fuzzed(40)
@given(randoms, json_values)
def test_other_values_in_any_file(
    whole: Path, victim: Path, draw: random.Random, value: Any
) -> None:
    folder, file = fresh(whole, victim, draw)
    if file.suffix == ".yaml":
        changed = replaced(yaml.safe_load(file.read_text()), draw, value)
        file.write_text(yaml.safe_dump(changed), errors="backslashreplace")
    elif file.suffix in (".json", ".jsonl"):
        lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
        place = draw.randrange(len(lines))
        lines[place] = json.dumps(replaced(json.loads(lines[place]), draw, value))
        file.write_text("\n".join(lines) + "\n")
    read(folder)


def test_a_folder_or_a_link_where_a_file_is_meant(whole: Path, victim: Path) -> None:
    names = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    for name in names:
        for make in (Path.mkdir, lambda path: path.symlink_to(path), lambda path: path.touch()):
            folder, _ = fresh(whole, victim, random.Random(0))
            (folder / name).unlink()
            make(folder / name)
            read(folder)


@fuzzed(60)
@given(randoms)
def test_harmed_bytes_of_an_archive(whole: Path, victim: Path, draw: random.Random) -> None:
    packed = victim / "whole.zip"
    if not packed.exists():
        pack(read_suites(whole), packed)
    target = victim / "harmed.zip"
    target.write_bytes(harmed(packed.read_bytes(), draw))
    with contextlib.suppress(UserError):
        use(read_archive(target))


NAMES = [
    *(
        "toy/plan.json",
        "toy/0123456789ab/spec.yaml",
        "../x",
        "/etc/x",
        "toy/../../x",
        "a\\b",
        "toy/",
    ),
    *(
        "toy/0123456789ab/metrics.jsonl",
        "toy/0123456789ab/checkpoint/state.pt",
        "C:/x",
        ".hid/plan.json",
    ),
    *(
        "toy/0123456789ab/status.json",
        "TOY/plan.json",
        "toy/0123456789ab/predictions.npz",
        "a\0b",
        "",
    ),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@fuzzed(60)
@given(randoms, json_values)
def test_archives_of_strangers(whole: Path, victim: Path, draw: random.Random, value: Any) -> None:
    """Nothing is written outside the folder it is unpacked to, whatever the members are called."""
    target = victim / "foreign.zip"
    real = [p for p in whole.rglob("*") if p.is_file()]
    with zipfile.ZipFile(target, "w") as archive:
        for file in real if draw.random() < 0.5 else []:
            archive.writestr(f"toy/{file.relative_to(whole)}", file.read_bytes())
        for _ in range(draw.randrange(4)):
            info = zipfile.ZipInfo("x")
            info.filename = draw.choice(NAMES)
            info.external_attr = draw.choice((0o644, 0o120777, 0o40755)) << 16
            kind = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
            archive.writestr(info, json.dumps(value), compress_type=kind)
    with contextlib.suppress(UserError):
        suites = read_archive(target)
        for suite in suites:
            for path in suite.files.parent.rglob("*"):
                assert path.is_relative_to(suite.files.parent)
                assert not path.is_symlink()
        use(suites)
    assert not Path("/etc/x").exists()
    assert not (victim.parent / "x").exists()
