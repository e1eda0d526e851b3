"""Two sets of results against each other, from fabricated run directories."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from scipy import stats
from statsmodels.stats.multitest import multipletests

from altgrad_core.analysis.frames import SPEED
from altgrad_core.errors import UserError
from altgrad_core.interfaces.blocks import Table
from altgrad_core.report.compare import (
    SetComparison,
    compare_results,
    comparison_document,
    comparison_tables,
    write_comparison,
)

MICRO = "final/test/f1_micro_tuned"
LOSS = "final/test/loss"
SEEDS = [0, 1, 2, 3, 4]
SIDES = ("adamw", "manifold_adamw")


def measured(f: ModuleType, score: float, speed: float = 100.0) -> list[str]:
    speeds = {"throughput/all/cumulative_samples_per_second": speed}
    return [f.line(50, "monitor", speeds), f.final_line(100, score)]


@pytest.fixture(scope="module")
def write(fabricated: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a suite of formats × both optimizers × seeds with ``score(fmt, optimizer, seed)``."""

    def written(
        name: str,
        score: Callable[[str, str, int], float],
        speed: float = 100.0,
        formats: tuple[str, ...] = ("bf16", "e5m2"),
        seeds: list[int] = SEEDS,
        device: str = "A chip",
    ) -> Path:
        f, folder = fabricated, tmp_path_factory.mktemp(name) / "toy"

        def lines(fmt: str, optimizer: str, seed: int) -> list[str]:
            return measured(f, score(fmt, optimizer, seed), speed)

        f.write_matrix(folder, formats, seeds, lines)
        for place in folder.glob("*/spec.yaml"):
            (place.parent / "environment.json").write_text(json.dumps({"device_name": device}))
        return folder

    return written


def base(fmt: str, optimizer: str, seed: int) -> float:
    return 0.5 + 0.01 * seed + (0.02 if optimizer != "adamw" else 0.0)


JUMPS = {"e5m2": [0.01, 0.02, 0.04, 0.03, 0.02], "bf16": [0.001, -0.002, 0.001, 0.002, 0.001]}


def moved(fmt: str, optimizer: str, seed: int) -> float:
    """B: each format moves by its own amounts, under AdamW alone."""
    return base(fmt, optimizer, seed) + (JUMPS[fmt][seed] if optimizer == "adamw" else 0.0)


def row(found: SetComparison, condition: str, metric: str = MICRO) -> dict[str, Any]:
    changes = found.changes
    mine = changes[(changes["metric"] == metric) & (changes["condition"] == condition)]
    assert len(mine) == 1
    return dict(mine.iloc[0])


def test_differences_intervals_and_tests(write: Callable[..., Path]) -> None:
    found = compare_results(write("a", base), write("b", moved))
    micro = found.changes[found.changes["metric"] == MICRO]
    assert list(micro["condition"]) == [
        f"{fmt}_{side}" for fmt in ("bf16", "e5m2") for side in SIDES
    ]
    raw = []
    for fmt, jumps in JUMPS.items():
        change = row(found, f"{fmt}_adamw")
        witness = stats.ttest_1samp(jumps, 0.0)
        low, high = witness.confidence_interval(0.95)
        assert change["pairs"] == 5
        assert change["a"] == pytest.approx(0.52)
        assert change["b"] == pytest.approx(0.52 + sum(jumps) / 5)
        assert change["difference"] == pytest.approx(sum(jumps) / 5)
        assert (change["low"], change["high"]) == pytest.approx((low, high))
        assert change["p"] == pytest.approx(witness.pvalue)
        assert change["better"] == sum(jump > 0 for jump in jumps)
        raw.append(witness.pvalue)
    # Untouched conditions have nothing to test, but count among the four of the family.
    assert math.isnan(row(found, "e5m2_manifold_adamw")["p_holm"])
    adjusted = multipletests([*raw, 1.0, 1.0], method="holm")[1]
    assert row(found, "e5m2_adamw")["p_holm"] == pytest.approx(adjusted[0])
    assert row(found, "bf16_adamw")["p_holm"] == pytest.approx(adjusted[1])


def test_below_five_pairs_nothing_is_tested(write: Callable[..., Path]) -> None:
    found = compare_results(write("a", base, seeds=SEEDS[:4]), write("b", moved, seeds=SEEDS[:4]))
    change = row(found, "e5m2_adamw")
    assert change["pairs"] == 4
    assert all(math.isnan(change[name]) for name in ("p", "p_holm", "p_sign_flip"))
    assert change["low"] < change["difference"] < change["high"]


def test_the_order_of_the_sides(write: Callable[..., Path]) -> None:
    a, b = write("a", base, speed=100.0), write("b", moved, speed=150.0)
    there, back = compare_results(a, b).changes, compare_results(b, a).changes
    assert there["difference"].tolist() == pytest.approx((-back["difference"]).tolist())
    assert row(compare_results(a, b), "e5m2_adamw", SPEED)["difference"] == 50.0


def test_better_is_what_the_task_declares(fabricated: ModuleType, tmp_path: Path) -> None:
    metrics = [{"name": "perplexity", "label": "P", "direction": "lower", "primary": True}]
    for name, value in (("a", 30.0), ("b", 35.0)):
        lines = [fabricated.line(100, "final", {"final/test/perplexity": value})]
        run = fabricated.write_run(tmp_path / name, "e5m2", "adamw", 0, lines=lines)
        cells = [fabricated.cell("e5m2", "adamw", 0, run)]
        fabricated.write_plan(tmp_path / name, cells, metrics=metrics, contrast=None)
    found = compare_results(tmp_path / "a", tmp_path / "b")
    change = row(found, "e5m2_adamw", "final/test/perplexity")
    assert (change["difference"], change["better"]) == (5.0, 0)
    assert found.labels["final/test/perplexity"] == "P"


def test_identical_to_the_last_bit_and_not_beyond(write: Callable[..., Path]) -> None:
    def nudged(fmt: str, optimizer: str, seed: int) -> float:
        score = base(fmt, optimizer, seed)
        return math.nextafter(score, 1) if (fmt, optimizer, seed) == ("e5m2", "adamw", 2) else score

    found = compare_results(write("a", base), write("b", nudged))
    change = row(found, "e5m2_adamw")
    assert (change["pairs"], change["same_id"], change["identical"]) == (5, 5, 4)
    assert found.notes[0].startswith("20 pairs of runs, 20 with the same id on both sides: 19 of ")
    assert "1 did not" in found.notes[0]
    assert f"e5m2_adamw seed 2 ({MICRO}: 0.52 and 0.5200000000000001)" in found.notes[1]


def test_a_set_against_itself(write: Callable[..., Path]) -> None:
    folder = write("a", base)
    found = compare_results(folder, folder)
    assert (found.changes["identical"] == found.changes["pairs"]).all()
    assert set(found.changes["difference"]) == {0.0}
    assert found.changes["p_holm"].isna().all()
    assert "20 of these ended the same" in found.notes[0]


def test_other_speed_alone_is_still_identical(write: Callable[..., Path]) -> None:
    a = write("a", base)
    b = write("b", base, speed=130.0, device="Another chip")
    found = compare_results(a, b)
    assert (found.changes["identical"] == 5).all()
    (said,) = (note for note in found.notes if note.startswith("Samples/s"))
    assert said.startswith("Samples/s were measured on A chip and on Another chip")


def test_other_settings_are_paired_by_label_and_named(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    f = fabricated
    for name, rate in (("a", 0.001), ("b", 0.003)):
        for seed in (0, 1):
            lines = measured(f, 0.5 + rate + seed)
            f.write_run(tmp_path / name, "e5m2", "adamw", seed, lines=lines, learning_rate=rate)
    found = compare_results(tmp_path / "a", tmp_path / "b")
    change = row(found, "e5m2_adamw")
    assert (change["same_id"], change["identical"]) == (0, 0)
    assert change["difference"] == pytest.approx(0.002)
    assert "no run of one set has the id of a run of the other" in found.notes[0]
    assert "training.learning_rate (0.001 and 0.003, in 2 pairs)" in found.notes[1]


def test_a_diverged_run_is_the_worst_score_and_one_that_failed_is_none(
    write: Callable[..., Path],
) -> None:
    a, b = write("a", base, formats=("e5m2",)), write("b", base, formats=("e5m2",))
    for place in b.glob("*/status.json"):
        spec = (place.parent / "spec.yaml").read_text()
        if "condition: e5m2_adamw\n" in spec and "seed: 1\n" in spec:
            place.write_text(json.dumps({"status": "diverged", "step": 7}))
        if "condition: e5m2_adamw\n" in spec and "seed: 2\n" in spec:
            place.write_text(json.dumps({"status": "error", "step": 7}))
    found = compare_results(a, b)
    change = row(found, "e5m2_adamw")
    assert change["pairs"] == 4
    assert change["difference"] == pytest.approx(-0.51 / 4)
    assert row(found, "e5m2_adamw", LOSS)["pairs"] == 3  # a loss has no worst value
    assert any("0 of" in note and "1 of" in note and "Diverged" in note for note in found.notes)
    assert f"In {a} alone: e5m2_adamw seed 2." in found.notes


def test_conditions_and_seeds_that_one_set_lacks(write: Callable[..., Path]) -> None:
    a = write("a", base, formats=("bf16", "e5m2"), seeds=[0, 1])
    b = write("b", base, formats=("e4m3", "bf16"), seeds=[1, 2])
    found = compare_results(a, b)
    assert set(found.changes["condition"]) == {"bf16_adamw", "bf16_manifold_adamw"}
    (old,) = (note for note in found.notes if note.startswith(f"In {a} alone"))
    assert "bf16_adamw seed 0" in old
    assert "e5m2_adamw seed 1" in old


def test_nothing_in_common(write: Callable[..., Path]) -> None:
    a, b = write("a", base, formats=("bf16",)), write("b", base, formats=("e5m2",))
    with pytest.raises(UserError, match=r"no condition and seed in common.*bf16_adamw.*e5m2_adamw"):
        compare_results(a, b)


def test_several_suites_are_matched_by_name(
    fabricated: ModuleType, write: Callable[..., Path]
) -> None:
    a, b = write("a", base), write("b", moved)
    for folder, score in ((a, 0.3), (b, 0.4)):
        lines = measured(fabricated, score)
        fabricated.write_run(
            folder.parent / "other", "e5m2", "adamw", 0, suite="other", lines=lines
        )
    found = compare_results(a.parent, b.parent)
    assert row(found, "other: e5m2_adamw")["difference"] == pytest.approx(0.1)
    assert row(found, "toy: e5m2_adamw")["difference"] == pytest.approx(0.024)


def test_runs_that_served_tuning_are_left_out(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    for name in "ab":
        run, tune = (
            f.write_run(tmp_path / name, "e5m2", "adamw", s, lines=measured(f, 0.5)) for s in (0, 7)
        )
        cells = [f.cell("e5m2", "adamw", 0, run), f.cell("e5m2", "adamw", 7, tune)]
        f.write_plan(tmp_path / name, [cells[0], cells[1] | {"stage": "tune"}])
    found = compare_results(tmp_path / "a", tmp_path / "b")
    assert row(found, "e5m2_adamw")["pairs"] == 1


def test_notes_of_the_sources_go_along(write: Callable[..., Path]) -> None:
    a, b, c = write("a", base), write("b", moved), write("c", base)
    assert any("ended differently" in note for note in compare_results([a, b], c).notes)


@pytest.fixture(scope="module")
def found(write: Callable[..., Path]) -> SetComparison:
    made = compare_results(write("a", base), write("b", moved, speed=150.0))
    return replace(made, names=("before", "after"))


def test_the_terminals_tables(found: SetComparison) -> None:
    out = StringIO()
    for table in comparison_tables(found):
        Console(file=out, width=140).print(table)
    rows = [line.split() for line in out.getvalue().splitlines() if line.startswith(" e5m2_adamw")]
    assert rows[0][:6] == ["e5m2_adamw", "5", "0", "0.5200", "0.5440", "+0.0240"]
    assert rows[0][6:9] == ["+0.0098", "to", "+0.0382"]
    assert rows[1][:7] == ["e5m2_adamw", "5", "0", "100.0", "150.0", "+50.00", "50.0"]
    assert "after − before" in out.getvalue()


def test_the_document_has_a_table_per_metric(found: SetComparison) -> None:
    document = comparison_document(found)
    assert document.title == "after against before"
    assert [part.title for part in document.parts] == list(found.labels.values())
    speed = document.parts[-1].blocks[0]
    assert isinstance(speed, Table)
    assert [cell.text for cell in speed.rows[0]][:7] == [
        *("bf16_adamw", "5", "0", "100.0", "150.0", "+50.00", "50.0")
    ]


def test_the_files(found: SetComparison, tmp_path: Path) -> None:
    paths = write_comparison(found, tmp_path / "deep" / "out")
    assert [p.name for p in paths] == ["comparison.md", "comparison.html", "comparison.csv"]
    pd.testing.assert_frame_equal(
        pd.read_csv(paths[2]), found.changes, check_dtype=False, rtol=1e-12
    )
    assert "| e5m2_adamw | 5 |" in paths[0].read_text()
    assert "e5m2_adamw" in paths[1].read_text()


def test_files_that_cannot_be_written_are_the_users_to_know(
    found: SetComparison, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        write_comparison(found, tmp_path / "file" / "out")
