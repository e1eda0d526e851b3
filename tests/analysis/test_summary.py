"""The main table: means and spreads worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from altgrad_core.analysis.summary import (
    condition_table,
    reference_condition,
    scores,
)
from altgrad_core.results.collect import load_results
from altgrad_core.results.stored import Contrast

CONTRAST = Contrast(
    axis="optimizer.type",
    baseline="adamw",
    treatment="manifold_adamw",
    metric="final/test/f1_micro_tuned",
)


def test_a_row_per_condition_with_mean_and_deviation(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    f = fabricated

    def lines(fmt: str, optimizer: str, seed: int) -> Iterable[str]:
        speed = 100.0 if fmt == "bf16" else 50.0
        fast = "throughput/all/cumulative_samples_per_second"
        return [
            f.monitor_line(1, rank__all__stable_rank=8.0 + seed, flips__all__stall_ratio=0.5),
            f.monitor_line(9, rank__all__stable_rank=4.0 + seed, flips__all__stall_ratio=0.7),
            f.line(9, "monitor", {fast: speed + seed}),
            f.final_line(9, [0.5, 0.6, 0.7][seed]),
        ]

    f.write_matrix(tmp_path, ["bf16", "e5m2"], [0, 1, 2], lines)
    table = condition_table(load_results(tmp_path), CONTRAST)
    assert table["condition"].tolist() == [
        f"{fmt}_{o}" for fmt in ("bf16", "e5m2") for o in ("adamw", "manifold_adamw")
    ]
    row = table.iloc[2]
    assert (row["runs"], row["n"], row["status"]) == (3, 3, "3 ok")
    assert row["f1_micro_tuned_mean"] == pytest.approx(0.6)
    assert row["f1_micro_tuned_std"] == pytest.approx(0.1)
    assert row["f1_macro_tuned_mean"] == pytest.approx(0.5)
    assert row["stable_rank_first"] == pytest.approx(9.0)
    assert row["stable_rank_last"] == pytest.approx(5.0)
    assert row["stall_ratio"] == pytest.approx(0.6)
    assert row["samples_per_second"] == pytest.approx(51.0)
    assert row["relative_throughput"] == pytest.approx(51 / 101)
    assert table["relative_throughput"].iloc[0] == 1.0
    assert math.isnan(row["effective_rank_first"])  # nobody measured it


def test_diverged_runs_count_as_zero_and_failed_ones_not_at_all(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    f = fabricated
    cells = []
    for seed, (status, lines) in enumerate(
        [
            ("ok", [f.final_line(9, 0.6)]),
            ("diverged", []),
            ("oom", []),
            ("error", [f.final_line(9, 0.9)]),
        ]
    ):
        run = f.write_run(tmp_path, "e5m2", "adamw", seed, status=status, lines=lines)
        cells.append(f.cell("e5m2", "adamw", seed, run))
    cells.append(f.cell("e5m2", "adamw", 4, None, skip="no GPU"))
    f.write_plan(tmp_path, cells)
    row = condition_table(load_results(tmp_path)).iloc[0]
    assert (row["runs"], row["n"]) == (5, 2)
    assert row["f1_micro_tuned_mean"] == pytest.approx(0.3)
    assert row["f1_micro_tuned_std"] == pytest.approx(math.sqrt(2 * 0.3**2))
    assert row["status"] == "1 ok, 1 diverged, 1 oom, 1 error, 1 skipped"


def test_runs_of_other_settings_do_not_enter(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    f.write_matrix(tmp_path, ["e5m2"], [0], lambda *_: [f.final_line(9, 0.6)])
    f.write_run(tmp_path, "e5m2", "adamw", 0, learning_rate=0.9, lines=[f.final_line(9, 0.1)])
    table = condition_table(load_results(tmp_path))
    assert table["f1_micro_tuned_mean"].tolist() == [0.6, 0.6]
    assert table["n"].tolist() == [1, 1]


def test_the_reference_is_the_first_baseline(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    f.write_plan(
        tmp_path,
        [f.cell("e5m2", "manifold_adamw", 0, None), f.cell("e5m2", "adamw", 0, None)],
    )
    results = load_results(tmp_path)
    assert reference_condition(results, CONTRAST) == "e5m2_adamw"
    assert reference_condition(results, None) == "e5m2_manifold_adamw"
    assert reference_condition(results.iloc[:0], CONTRAST) is None


def test_a_loss_has_no_worst_value(fabricated: ModuleType, tmp_path: Path) -> None:
    fabricated.write_run(tmp_path, "e5m2", "adamw", 0, status="diverged")
    assert scores(load_results(tmp_path), "final/test/loss").isna().all()
