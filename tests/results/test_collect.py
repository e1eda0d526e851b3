"""Run directories -> tables, read from files that the code under test did not write."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from altgrad_core.errors import UserError
from altgrad_core.results.collect import load_curves, load_results, write_table
from altgrad_core.results.run_directory import RunDirectory
from altgrad_core.results.sources import read_one


@pytest.fixture
def suite(fabricated: ModuleType, tmp_path: Path) -> Path:
    """Four cells: ok, diverged, skipped and not run yet; and a run of other settings."""
    f, folder = fabricated, tmp_path / "runs" / "toy"
    ok = f.write_run(
        folder,
        "e5m2",
        "adamw",
        3,
        lines=[
            f.line(1, "train", {"train/all/loss": 0.7, "train/all/learning_rate": 1e-3}),
            f.monitor_line(1, rank__all__stable_rank=8.0, rank__layer_0__stable_rank=5.0),
            f.line(10, "train", {"train/all/loss": 0.4, "train/all/learning_rate": 1e-3}),
            f.monitor_line(10, rank__all__stable_rank=6.0),
            f.line(10, "evaluation", {"validation/all/f1_micro": 0.3, "validation/all/loss": 0.5}),
            f.monitor_line(20, rank__all__stable_rank=math.nan),
            f.event_line(20, "rank_collapse", "layer_0", "below 0.5"),
            f.monitor_line(30, rank__all__stable_rank=1.0),
            f.final_line(30, 0.75),
        ],
        environment={"device": "cuda:0", "device_name": "A card"},
    )
    bad = f.write_run(
        folder,
        "e5m2",
        "manifold_adamw",
        3,
        lines=[f.line(1, "train", {"train/all/loss": math.inf})],
        status="diverged",
        message="loss was inf",
        step=11,
    )
    f.write_run(folder, "bf16", "adamw", 3, learning_rate=0.5)
    f.write_plan(
        folder,
        [
            f.cell("e5m2", "adamw", 3, ok),
            f.cell("e5m2", "manifold_adamw", 3, bad),
            f.cell("e7m0", "adamw", 3, None, skip="no such plugin"),
            f.cell("e7m0", "manifold_adamw", 3, "f" * 12),
        ],
    )
    (folder / "report").mkdir()  # not a run directory: passed over
    return folder


def test_one_row_per_run_in_the_order_of_the_plan(suite: Path) -> None:
    table = load_results(suite)
    assert table["condition"].tolist() == [
        "e5m2_adamw",
        "e5m2_manifold_adamw",
        "e7m0_adamw",
        "e7m0_manifold_adamw",
        "bf16_adamw",
    ]
    assert table["status"].tolist() == ["ok", "diverged", "skipped", "pending", "ok"]
    assert table["message"].tolist()[1:4] == ["loss was inf", "no such plugin", "not run yet"]
    assert table["planned"].tolist() == [True] * 4 + [False]
    assert table["format"].tolist() == ["e5m2", "e5m2", "e7m0", "e7m0", "bf16"]
    assert table["optimizer"].tolist() == ["adamw", "manifold_adamw"] * 2 + ["adamw"]
    assert table["optimizer.type"].tolist() == table["optimizer"].tolist()
    assert table["quantization.format"].tolist() == table["format"].tolist()
    assert set(table["seed"]) == {3}
    assert set(table["suite"]) == {"toy"}


def test_two_cells_that_share_a_run_have_a_row_each(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    run = f.write_run(tmp_path, "e5m2", "adamw", 3, lines=[f.final_line(30, 0.75)])
    given = f.cell("e5m2", "adamw", 3, run)
    tuned = given | {"condition": "e5m2_adamw_auto"}
    tuned["axes"] = given["axes"] | {"training.learning_rate": "auto"}
    f.write_plan(tmp_path, [given, tuned, tuned | {"condition": "trial", "stage": "tune"}])
    table = load_results(tmp_path)
    assert table["condition"].tolist() == ["e5m2_adamw", "e5m2_adamw_auto", "trial"]
    assert table["planned"].tolist() == [True, True, False]
    assert table["status"].tolist() == ["ok"] * 3
    assert table["final/test/f1_micro_tuned"].tolist() == [0.75] * 3
    assert table["training.learning_rate"].isna().tolist() == [True, False, False]
    assert table["training.learning_rate"].tolist()[1:] == ["auto", "auto"]


def test_columns_of_a_run(suite: Path) -> None:
    row = load_results(suite).iloc[0]
    assert row["device"] == "A card"
    assert row["seconds"] == 12.5
    assert row["learning_rate"] == 0.001
    assert Path(row["directory"]).name == row["id"]
    assert row["final/test/f1_micro_tuned"] == 0.75
    assert row["final/test/f1_macro_tuned"] == pytest.approx(0.65)
    assert row["final/validation/f1_micro_tuned"] == 0.76
    assert row["train/all/loss@last"] == 0.4
    assert row["validation/all/loss@last"] == 0.5
    assert row["rank/all/stable_rank@first"] == 8.0
    assert row["rank/all/stable_rank@last"] == 1.0
    assert row["rank/all/stable_rank@mean"] == 5.0  # (8 + 6 + 1) / 3: the NaN is a gap
    assert not [name for name in row.index if "layer_0" in name]


def test_what_a_run_did_not_record_is_nan(suite: Path) -> None:
    table = load_results(suite)
    assert table["final/test/f1_micro_tuned"].isna().tolist() == [False, True, True, True, True]
    assert math.isinf(table.loc[1, "train/all/loss@last"])


def test_a_run_directory_and_a_folder_of_suites(suite: Path) -> None:
    run = Path(load_results(suite).loc[0, "directory"])
    alone = load_results(run)
    assert alone["id"].tolist() == [run.name]
    assert alone["planned"].tolist() == [True]
    assert load_results(suite.parent)["id"].tolist() == load_results(suite)["id"].tolist()


def test_curves_are_long_and_sorted(suite: Path) -> None:
    curves = load_curves(suite, ["train/all/loss", "rank/layer_0/stable_rank", "no/such/metric"])
    first = load_results(suite).loc[0, "id"]
    mine = curves[curves["id"] == first]
    assert list(zip(mine["name"], mine["step"], mine["value"], strict=True)) == [
        ("train/all/loss", 1, 0.7),
        ("train/all/loss", 10, 0.4),
        ("rank/layer_0/stable_rank", 1, 5.0),
    ]
    assert load_curves(suite, []).columns.tolist() == ["id", "step", "name", "value"]


def test_of_a_step_written_twice_the_last_line_counts(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    f = fabricated
    lines = [f.line(step, "train", {"train/all/loss": v}) for step, v in ((1, 5.0), (2, 4.0))]
    lines.append(f.line(1, "train", {"train/all/loss": 3.0}))
    f.write_run(tmp_path / "toy", "e5m2", "adamw", 0, lines=lines)
    curves = load_curves(tmp_path / "toy", ["train/all/loss"])
    assert curves["value"].tolist() == [3.0, 4.0]


def test_a_half_written_last_line_is_passed_over(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    run = f.write_run(
        tmp_path, "e5m2", "adamw", 0, lines=[f.line(1, "train", {"train/all/loss": 0.5})]
    )
    with (tmp_path / run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "kind": "tra')
    assert load_results(tmp_path)["train/all/loss@last"].tolist() == [0.5]


@pytest.mark.parametrize("damage", ["{half", '{"step": 1}', "[1, 2]"])
def test_a_damaged_line_elsewhere_names_file_and_line(
    fabricated: ModuleType, tmp_path: Path, damage: str
) -> None:
    f = fabricated
    good = f.line(1, "train", {"train/all/loss": 0.5})
    run = f.write_run(tmp_path, "e5m2", "adamw", 0, lines=[good, damage, good])
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2") as caught:
        load_results(tmp_path)
    assert run in str(caught.value)


def test_a_run_directory_that_was_renamed_is_out_of_the_way(suite: Path) -> None:
    run = Path(load_results(suite).loc[0, "directory"])
    (run / "spec.yaml").write_text("{damaged")
    run.rename(run.with_name(f"away-{run.name}"))
    table = load_results(suite)
    assert table.loc[0, "status"] == "pending"
    assert len(table) == 5


def test_a_folder_without_results_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        load_results(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.txt").write_text("meow")
    with pytest.raises(UserError, match="holds no results"):
        load_results(tmp_path)


def test_another_layout_is_refused_with_the_fix(fabricated: ModuleType, tmp_path: Path) -> None:
    fabricated.write_run(tmp_path, "e5m2", "adamw", 0, layout=99)
    with pytest.raises(UserError, match=r"layout is 99, this version reads layout 1.*--runs"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("spec.yaml", "a: [1", "cannot be read"),
        ("spec.yaml", "- 1", "no settings"),
        ("spec.yaml", "layout: 1\nid: x", "suite: Field required"),
        ("status.json", "{", "cannot be read"),
        ("environment.json", "{", "cannot be read"),
        ("environment.json", "[]", "no JSON object"),
        ("environment.json", '{"threads": []}', "threads: Input should be a valid integer"),
        ("environment.json", '{"packages": 3}', "packages: Input should be a valid dictionary"),
    ],
)
def test_a_damaged_file_is_named(
    fabricated: ModuleType, tmp_path: Path, name: str, text: str, reason: str
) -> None:
    run = fabricated.write_run(tmp_path, "e5m2", "adamw", 0)
    (tmp_path / run / name).write_text(text)
    with pytest.raises(UserError, match=reason) as caught:
        load_results(tmp_path)
    assert f"{run}/{name}" in str(caught.value)


def test_a_damaged_plan_is_named(suite: Path) -> None:
    (suite / "plan.json").write_text("{")
    with pytest.raises(UserError, match=r"plan\.json cannot be read.*plan\.json away"):
        load_results(suite)


def test_axes_keep_numbers_and_name_parametric_formats(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    f = fabricated
    exmy = {"name": "exmy", "exponent_bits": 3}
    for number, fmt in enumerate(["e5m2", exmy]):
        axes = {"quantization.format": fmt, "model.num_layers": number, "seed": 0}
        f.write_run(tmp_path, "any", "adamw", number, axes=axes | {"training.schedule": None})
    table = load_results(tmp_path).sort_values("seed")
    assert table["quantization.format"].tolist() == ["e5m2", "exmy (exponent_bits=3)"]
    assert table["format"].tolist() == table["quantization.format"].tolist()
    assert table["model.num_layers"].tolist() == [0, 1]
    assert table["training.schedule"].tolist() == ["none", "none"]
    assert table["seed"].tolist() == [0, 1]  # the run's own, not the axis of that name


def test_axes_of_several_types_become_text(fabricated: ModuleType, tmp_path: Path) -> None:
    for seed, value in enumerate(["all", 3, 0.5, True]):
        fabricated.write_run(tmp_path, "e5m2", "adamw", seed, axes={"model.part": value})
    table = load_results(tmp_path).sort_values("seed")
    assert table["model.part"].tolist() == ["all", "3", "0.5", "true"]


def test_parquet_gives_the_table_back(suite: Path, tmp_path: Path) -> None:
    table = load_results(suite)
    path = tmp_path / "deep" / "table.parquet"
    write_table(table, path)
    pd.testing.assert_frame_equal(pd.read_parquet(path), table, check_dtype=False)
    assert [p.name for p in path.parent.iterdir()] == ["table.parquet"]


def test_a_table_that_cannot_be_written_is_the_users_to_know(suite: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        write_table(load_results(suite), tmp_path / "file" / "table.parquet")


def test_a_plan_alone_is_a_suite(fabricated: ModuleType, tmp_path: Path) -> None:
    fabricated.write_plan(tmp_path, [fabricated.cell("e5m2", "adamw", 0, "0" * 12)])
    table = load_results(tmp_path)
    assert table["status"].tolist() == ["pending"]
    assert json.loads((tmp_path / "plan.json").read_text())["suite"] == table.loc[0, "suite"]


DAMAGES = {
    "spec.yaml": b"{half",
    "status.json": b"",
    "environment.json": b"{",
    "facts.json": b"[]",
    "metrics.jsonl": b"{}\n" + bytes(50) + b"\n",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_left_out_by_name_and_the_others_are_read(suite: Path, name: str) -> None:
    before = load_results(suite)
    run = Path(before.loc[0, "directory"])
    (run / name).write_bytes(DAMAGES[name])
    table = load_results(suite)
    assert len(table) == len(before)
    row = table[table["id"] == run.name].iloc[0]
    assert row["status"] == "error"
    assert str(run / name) in row["message"]
    whole = table["id"] != run.name
    assert table.loc[whole, "status"].tolist() == before.loc[whole, "status"].tolist()
    (note,) = read_one(suite).notes
    assert note.startswith(f"The run {run.name} is left out, its record is damaged: {run / name}")


def test_metrics_that_are_not_as_the_run_left_them_are_no_result(suite: Path) -> None:
    run = RunDirectory(Path(load_results(suite).loc[0, "directory"]))
    status = run.status().model_copy(update={"status": "ok", "record": run.record_digest()})
    run.write_status(status)
    assert load_results(suite).loc[0, "status"] == "ok"
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    run.metrics.write_bytes(b"".join(lines[:-1]))
    row = load_results(suite).loc[0]
    assert row["status"] == "error"
    assert "it was cut or changed" in row["message"]
    assert read_one(suite).damaged.keys() == {run.path.name}
