"""Several sources of one suite as one."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from altgrad_core.analysis.frames import tuning_table
from altgrad_core.errors import UserError
from altgrad_core.results.collect import load_curves, load_results
from altgrad_core.results.kept import Contrast, Declaration, StoredPlan, StoredSpec
from altgrad_core.results.merge import merge_suites
from altgrad_core.results.run_directory import Status
from altgrad_core.results.sources import read_one, read_sources
from altgrad_core.results.stated import with_contrast
from altgrad_core.results.stored import StoredSuite

OPTIMIZERS = ("adamw", "manifold_adamw")
SCORE = "final/test/f1_micro_tuned"


def machine(
    f: ModuleType,
    folder: Path,
    done: dict[tuple[str, int], float | None],
    seeds: tuple[int, ...] = (0, 1),
    **plan: Any,
) -> Path:
    """One machine's folder: ``done`` has (optimizer, seed) -> its score, or None for "interrupted".

    The plan asks for both optimizers with ``seeds``; ids do not depend on the machine.
    """
    cells = []
    for seed in seeds:
        for optimizer in OPTIMIZERS:
            axes = {"quantization.format": "e5m2", "optimizer.type": optimizer}
            identity = f.run_id("e5m2", optimizer, seed, axes, 0.001)
            cells.append(f.cell("e5m2", optimizer, seed, identity))
            if (optimizer, seed) not in done:
                continue
            score = done[optimizer, seed]
            state = {"status": "killed", "step": 40} if score is None else {}
            lines = [f.line(1, "train", {"train/all/loss": 0.5})]
            lines += [] if score is None else [f.final_line(100, score)]
            f.write_run(folder, "e5m2", optimizer, seed, lines=lines, **state)
    f.write_plan(folder, cells, **plan)
    return folder


def test_machines_that_shared_the_work(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    whole = {(o, s): 0.5 + 0.1 * s + 0.01 * len(o) for o in OPTIMIZERS for s in (0, 1)}
    first = {key: score for key, score in whole.items() if key[1] == 0}
    second = {key: score for key, score in whole.items() if key[1] == 1}
    one = machine(f, tmp_path / "one" / "toy", whole)
    parts = [
        machine(f, tmp_path / "a" / "toy", first, seeds=(0,)),
        machine(f, tmp_path / "b" / "toy", second, seeds=(1,)),
    ]
    together, alone = load_results(parts), load_results(one)
    place = "directory"
    pd.testing.assert_frame_equal(together.drop(columns=place), alone.drop(columns=place))
    assert [Path(d).parents[1].name for d in together[place]] == ["a", "a", "b", "b"]
    pd.testing.assert_frame_equal(
        load_curves(parts, ["train/all/loss"]).sort_values("id", ignore_index=True),
        load_curves(one, ["train/all/loss"]).sort_values("id", ignore_index=True),
    )
    assert read_one(parts).notes == ()


@pytest.mark.parametrize("turned", [False, True])
def test_the_finished_one_of_two_copies_counts(
    fabricated: ModuleType, tmp_path: Path, turned: bool
) -> None:
    a = machine(fabricated, tmp_path / "a", {("adamw", 0): None, ("adamw", 1): 0.7})
    b = machine(fabricated, tmp_path / "b", {("adamw", 0): 0.6, ("adamw", 1): None})
    table = load_results([b, a] if turned else [a, b])
    assert table["status"].tolist() == ["ok", "pending", "ok", "pending"]
    assert table[SCORE].tolist()[::2] == [0.6, 0.7]
    assert read_one([a, b]).notes == ()


def test_of_unfinished_copies_the_one_that_got_farthest(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    folders = [machine(fabricated, tmp_path / n, {("adamw", 0): None}) for n in "ab"]
    (run,) = folders[1].glob("*/status.json")
    run.write_text(json.dumps({"status": "killed", "step": 60}))
    assert load_results(folders)["step"].tolist()[0] == 60


def test_a_copy_is_no_news(fabricated: ModuleType, tmp_path: Path) -> None:
    a = machine(fabricated, tmp_path / "a", {("adamw", 0): 0.6, ("adamw", 1): 0.7})
    shutil.copytree(a, tmp_path / "b")
    merged = read_one([a, tmp_path / "b"])
    assert merged.notes == ()
    assert merged.plan == read_one(a).plan
    assert {Path(run.location).parent for run in merged.runs} == {a}


def test_copies_that_differ_are_told_and_the_first_counts(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    a = machine(fabricated, tmp_path / "a", {("adamw", 0): 0.6, ("adamw", 1): 0.7})
    b = machine(fabricated, tmp_path / "b", {("adamw", 0): 0.6, ("adamw", 1): 0.7 + 1e-16})
    c = machine(fabricated, tmp_path / "c", {("adamw", 0): 0.6, ("adamw", 1): 0.71})
    assert 0.7 + 1e-16 != 0.7  # one bit
    assert load_results([a, c])[SCORE].tolist()[2] == 0.7
    for other, value in ((b, "0.7000000000000001"), (c, "0.71")):
        (note,) = read_one([a, other]).notes
        assert "ended differently there; the first counts: e5m2_adamw seed 1" in note
        assert f"{SCORE}: 0.7 and {value}" in note
        assert str(a) in note
        assert str(other) in note
        assert "seed 0" not in note


def test_a_run_that_diverged_on_one_machine_only(fabricated: ModuleType, tmp_path: Path) -> None:
    a = machine(fabricated, tmp_path / "a", {("adamw", 0): 0.6})
    b = machine(fabricated, tmp_path / "b", {("adamw", 0): None})
    (state,) = b.glob("*/status.json")
    state.write_text(json.dumps({"status": "diverged", "step": 40}))
    (note,) = read_one([a, b]).notes
    assert "status: ok and diverged; step: 100 and 40" in note


def test_one_cell_with_other_settings_is_counted_once(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    f = fabricated
    folders = []
    for name, rate in (("a", 0.001), ("b", 0.003)):
        folder = tmp_path / name
        runs = [
            f.write_run(
                folder,
                "e5m2",
                "adamw",
                seed,
                lines=[f.final_line(100, rate)],
                learning_rate=rate,
                status="killed" if (name, seed) == ("a", 1) else "ok",
            )
            for seed in (0, 1)
        ]
        f.write_plan(folder, [f.cell("e5m2", "adamw", s, run) for s, run in enumerate(runs)])
        folders.append(folder)
    merged = read_one(folders)
    table = load_results(folders)
    counted = table[table["planned"]]
    assert counted["seed"].tolist() == [0, 1]
    assert counted["learning_rate"].tolist() == [0.001, 0.003]  # seed 1 ended on b alone
    assert len(table) == 4
    (note,) = merged.notes
    assert "different settings or versions, of which one counts" in note
    assert "training.learning_rate: 0.001 and 0.003" in note
    assert "training.learning_rate: 0.003 and 0.001" in note


def test_a_cell_that_one_machine_skipped(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    run = f.write_run(tmp_path / "b", "e5m2", "adamw", 0, lines=[f.final_line(100, 0.5)])
    f.write_plan(tmp_path / "b", [f.cell("e5m2", "adamw", 0, run)])
    f.write_plan(tmp_path / "a", [f.cell("e5m2", "adamw", 0, None, skip="no GPU")])
    for folders in (["a", "b"], ["b", "a"]):
        assert load_results([tmp_path / n for n in folders])["status"].tolist() == ["ok"]


def test_what_the_plans_say_beside_their_cells(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    other = f.CONTRAST | {"treatment": "lion"}
    a = machine(f, tmp_path / "a", {}, contrast=None, margin=None, command="on a")
    b = machine(f, tmp_path / "b", {}, margin=0.01, command="on b")
    c = machine(f, tmp_path / "c", {}, margin=0.02, contrast=other, command="on a")
    merged = read_one([a, b, c])
    assert merged.plan is not None
    assert merged.plan.command == "on a\non b"
    assert merged.plan.contrast == Contrast(**f.CONTRAST)
    assert merged.plan.margin == 0.01
    assert sorted(merged.notes) == [
        "The sources declare different contrasts; the first one is used.",
        "The sources declare different margins; the first one is used.",
    ]


def test_tuning_is_taken_together(fabricated: ModuleType, tmp_path: Path) -> None:
    folders = []
    for name, chosen in (("a", {"x": 0.1, "y": 0.1}), ("b", {"y": 0.2, "z": 0.2})):
        folder = machine(fabricated, tmp_path / name, {})
        one = {k: {"scores": {}, "chosen": v, "censored": False} for k, v in chosen.items()}
        body = {"metric": "m", "rates": [0.1, 0.2], "seeds": [7], "conditions": one}
        (folder / "tuning.json").write_text(json.dumps(body))
        folders.append(folder)
    merged = read_one(folders)
    assert merged.tuning is not None
    chosen = {name: found.chosen for name, found in merged.tuning.conditions.items()}
    assert chosen == {"x": 0.1, "y": 0.1, "z": 0.2}
    assert merged.notes == ("The sources chose different learning rates for y: 0.1 and 0.2.",)


@pytest.mark.parametrize(("metric", "seeds", "kept"), [("m", [7], 2), ("n", [7], 1), ("m", [8], 1)])
def test_scores_of_another_protocol_of_tuning_stand_in_no_table_with_the_first(
    fabricated: ModuleType, tmp_path: Path, metric: str, seeds: list[int], kept: int
) -> None:
    folders = []
    for name, protocol in (("a", ("m", [7])), ("b", (metric, seeds))):
        folder = machine(fabricated, tmp_path / name, {})
        one = {"scores": {"0.1": [0.5], "0.2": [0.4]}, "chosen": 0.1, "censored": False}
        head = dict(zip(("metric", "seeds"), protocol, strict=True))
        body = {**head, "rates": [0.1, 0.2], "conditions": {f"of_{name}": one}}
        (folder / "tuning.json").write_text(json.dumps(body))
        folders.append(folder)
    merged = read_one(folders)
    assert merged.tuning is not None
    assert list(merged.tuning.conditions) == ["of_a", "of_b"]
    assert tuning_table(merged.tuning)["condition"].nunique() == kept


def test_run_directories_without_a_plan(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    runs = []
    for name, seed in (("a", 0), ("b", 1)):
        run = f.write_run(tmp_path / name, "e5m2", "adamw", seed, lines=[f.final_line(100, 0.5)])
        runs.append(tmp_path / name / run)
    table = load_results(runs)
    assert table["seed"].tolist() == [0, 1]
    assert table["planned"].all()


def test_suites_of_other_names_stay_apart(fabricated: ModuleType, tmp_path: Path) -> None:
    a = machine(fabricated, tmp_path / "a", {("adamw", 0): 0.6})
    b = machine(fabricated, tmp_path / "b", {("adamw", 0): 0.6}, suite="other")
    assert [suite.name for suite in read_sources([a, b])] == ["toy", "other"]
    with pytest.raises(UserError, match=f"results of 2 suites.*{a}, {b}"):
        read_one([a, b])
    with pytest.raises(ValueError, match="one name"):
        merge_suites([read_one(a), read_one(b)])
    with pytest.raises(ValueError, match="one name"):
        merge_suites([])


def test_no_source_is_an_error() -> None:
    with pytest.raises(UserError, match="No results were named"):
        load_results([])


def test_a_contrast_that_is_stated(fabricated: ModuleType, tmp_path: Path) -> None:
    suite = read_one(machine(fabricated, tmp_path, {("adamw", 0): 0.6}, margin=0.01))
    turned = with_contrast(suite, "optimizer.type = manifold_adamw, adamw")
    assert turned.plan is not None
    expected = fabricated.CONTRAST | {"baseline": "manifold_adamw", "treatment": "adamw"}
    assert turned.plan.contrast == Contrast(**expected)
    assert turned.plan.margin == 0.01


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("optimizer.type", "AXIS=BASELINE,TREATMENT"),
        ("optimizer.type=adamw", "AXIS=BASELINE,TREATMENT"),
        ("optimizer.type=adamw,adamw", "AXIS=BASELINE,TREATMENT"),
        ("optimizer=adamw,lion", "no axis 'optimizer'; they have quantization.format, optimizer"),
        ("optimizer.type=adamw,lion", "No result has optimizer.type=lion; there are adamw, man"),
    ],
)
def test_a_contrast_that_cannot_be(
    fabricated: ModuleType, tmp_path: Path, stated: str, message: str
) -> None:
    suite = read_one(machine(fabricated, tmp_path, {}))
    with pytest.raises(UserError, match=message):
        with_contrast(suite, stated)


class TestDeclarations:
    """Machines that share a suite's work each declare their part of it."""

    @staticmethod
    def suite(seeds: tuple[int, ...], at: float, ended: float, **question: Any) -> StoredSuite:
        asked = {"axis": "optimizer.type", "baseline": "a", "treatment": "b", "metric": "m"}
        declared = Declaration(
            at=at, contrast=Contrast(**{**asked, **question}), seeds=seeds, conditions=("x",)
        )
        status = Status(status="ok", updated=ended)
        spec = StoredSpec.model_validate(
            {
                "id": f"{seeds[0]:012x}",
                "suite": "toy",
                "condition": "x",
                "seed": seeds[0],
                "task": {"name": "t"},
                "quantization": {"format": {"name": "f"}},
                "optimizer": {"name": "o"},
                "training": {"learning_rate": 0.1, "max_steps": 1},
            }
        )
        run = Kept(spec, status)
        return StoredSuite(Path(str(at)), StoredPlan(suite="toy", declared=declared), (run,))

    def test_parts_that_were_declared_before_any_result_are_one(self) -> None:
        merged = merge_suites([self.suite((0, 1), 10, 20), self.suite((2,), 15, 30)])
        assert merged.plan is not None
        assert merged.plan.declared is not None
        assert merged.plan.declared.seeds == (0, 1, 2)

    def test_what_was_declared_after_a_result_does_not_count(self) -> None:
        merged = merge_suites([self.suite((2,), 25, 30), self.suite((0, 1), 10, 20)])
        assert merged.plan is not None
        assert merged.plan.declared is not None
        assert merged.plan.declared.seeds == (0, 1)

    def test_different_questions_are_none(self) -> None:
        merged = merge_suites([self.suite((0,), 10, 20), self.suite((1,), 11, 20, metric="other")])
        assert merged.plan is not None
        assert merged.plan.declared is None
        assert any("different questions" in note for note in merged.notes)


@dataclass
class Kept:
    """A run of which nothing but the status and the spec is asked."""

    spec: StoredSpec
    status: Status
    location: str = "/nowhere"

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")
