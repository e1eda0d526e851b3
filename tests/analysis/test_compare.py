"""Two sets of results against each other, from fabricated run directories."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from rich.console import Console
from scipy import stats
from statsmodels.stats.multitest import multipletests

from altgrad_core.analysis.changes import METRICS, SPEED, SetComparison
from altgrad_core.analysis.compare import (
    compare,
    compare_results,
    comparison_document,
    comparison_table,
    write_comparison,
)
from altgrad_core.analysis.document import Cell, Table
from altgrad_core.errors import UserError
from altgrad_core.results.sources import read_sources

MICRO = "final/test/f1_micro_tuned"
Lines = Callable[[str, str, int], list[str]]
SEEDS = [0, 1, 2, 3]
SIDES = ("adamw", "manifold_adamw")


def measured(f: ModuleType, score: float, speed: float = 100.0) -> list[str]:
    speeds = {"throughput/all/cumulative_samples_per_second": speed}
    return [f.line(50, "monitor", speeds), f.final_line(100, score)]


@pytest.fixture
def write(fabricated: ModuleType, tmp_path: Path) -> Callable[..., Path]:
    """Writes a suite of formats × both optimizers × seeds with ``score(fmt, optimizer, seed)``."""

    def written(
        name: str,
        score: Callable[[str, str, int], float],
        speed: float = 100.0,
        formats: tuple[str, ...] = ("bf16", "e5m2"),
        seeds: list[int] = SEEDS,
        device: str = "A chip",
    ) -> Path:
        f, folder = fabricated, tmp_path / name / "toy"

        def lines(fmt: str, optimizer: str, seed: int) -> list[str]:
            return measured(f, score(fmt, optimizer, seed), speed)

        f.write_matrix(folder, formats, seeds, lines)
        for place in folder.glob("*/spec.yaml"):
            (place.parent / "environment.json").write_text(json.dumps({"device_name": device}))
        return folder

    return written


def base(fmt: str, optimizer: str, seed: int) -> float:
    return 0.5 + 0.01 * seed + (0.02 if optimizer != "adamw" else 0.0)


JUMPS = {"e5m2": [0.01, 0.02, 0.04, 0.03], "bf16": [0.001, -0.002, 0.001, 0.002]}


def moved(fmt: str, optimizer: str, seed: int) -> float:
    """B: each format moves by its own amounts, under AdamW alone."""
    return base(fmt, optimizer, seed) + (JUMPS[fmt][seed] if optimizer == "adamw" else 0.0)


def test_differences_intervals_and_tests(write: Callable[..., Path]) -> None:
    found = compare_results(write("a", base), write("b", moved))
    changes = {change.condition: change for change in found.of(MICRO)}
    assert list(changes) == [f"{fmt}_{side}" for fmt in ("bf16", "e5m2") for side in SIDES]
    raw = []
    for fmt, jumps in JUMPS.items():
        change = changes[f"{fmt}_adamw"]
        witness = stats.ttest_1samp(jumps, 0.0)
        low, high = witness.confidence_interval(0.95)
        assert change.seeds == tuple(SEEDS)
        assert change.a.mean == pytest.approx(0.515)
        assert change.b.mean == pytest.approx(0.515 + sum(jumps) / 4)
        assert change.summary.mean == pytest.approx(sum(jumps) / 4)
        assert (change.summary.low, change.summary.high) == pytest.approx((low, high))
        assert change.summary.t_p == pytest.approx(witness.pvalue)
        assert change.summary.improved == sum(jump > 0 for jump in jumps)
        raw.append(witness.pvalue)
    # Untouched conditions have nothing to test, but count among the four of the family.
    assert math.isnan(changes["e5m2_manifold_adamw"].adjusted_p)
    adjusted = multipletests([*raw, 1.0, 1.0], method="holm")[1]
    assert changes["e5m2_adamw"].adjusted_p == pytest.approx(adjusted[0])
    assert changes["bf16_adamw"].adjusted_p == pytest.approx(adjusted[1])


def test_the_order_of_the_sides(write: Callable[..., Path]) -> None:
    a, b = write("a", base, speed=100.0), write("b", moved, speed=150.0)
    there, back = compare_results(a, b), compare_results(b, a)
    for one, other in zip(there.changes, back.changes, strict=True):
        assert one.summary.mean == pytest.approx(-other.summary.mean)
    assert there.of(SPEED)[0].summary.mean == 50.0


def test_every_metric_of_the_main_table_and_speed(write: Callable[..., Path]) -> None:
    found = compare_results(write("a", base), write("b", moved))
    assert found.metrics == tuple(METRICS)
    table = found.frame()
    assert len(table) == 5 * 4
    row = table[(table["condition"] == "e5m2_adamw") & (table["metric"] == MICRO)].iloc[0]
    assert row["difference"] == pytest.approx(0.025)
    assert (row["pairs"], row["same_id"], row["identical"]) == (4, 4, 0)


def test_identical_to_the_last_bit_and_not_beyond(write: Callable[..., Path]) -> None:
    def nudged(fmt: str, optimizer: str, seed: int) -> float:
        score = base(fmt, optimizer, seed)
        return math.nextafter(score, 1) if (fmt, optimizer, seed) == ("e5m2", "adamw", 2) else score

    found = compare_results(write("a", base), write("b", nudged))
    (changed,) = (pair for pair in found.pairs if not pair.identical)
    assert (changed.condition, changed.seed, changed.same) == ("e5m2_adamw", 2, True)
    assert changed.differences[MICRO] == ("0.52", "0.5200000000000001")
    assert found.notes[0].startswith("16 pairs of runs, 16 with the same id on both sides. 15 of ")
    assert "1 did not" in found.notes[0]
    assert f"e5m2_adamw seed 2 ({MICRO}: 0.52 and 0.5200000000000001)" in found.notes[1]


def test_a_set_against_itself(write: Callable[..., Path]) -> None:
    folder = write("a", base)
    found = compare_results(folder, folder)
    assert all(pair.identical for pair in found.pairs)
    assert {change.summary.mean for change in found.changes} == {0.0}
    assert all(math.isnan(change.adjusted_p) for change in found.changes)
    assert "All of these ended the same" in found.notes[0]


def test_other_speed_alone_is_still_identical(write: Callable[..., Path]) -> None:
    a = write("a", base)
    b = write("b", base, speed=130.0, device="Another chip")
    found = compare_results(a, b)
    assert all(pair.identical for pair in found.pairs)
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
    assert [pair.same for pair in found.pairs] == [False, False]
    assert not any(pair.identical for pair in found.pairs)
    assert found.settings == {("training.learning_rate", "0.001", "0.003"): 2}
    assert "no run of one set has the id of a run of the other" in found.notes[0]
    assert "training.learning_rate (0.001 and 0.003, in 2 pairs)" in found.notes[1]
    assert found.of(MICRO)[0].summary.mean == pytest.approx(0.002)


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
    change = found.of(MICRO)[0]
    assert change.seeds == (0, 1, 3)
    assert change.summary.mean == pytest.approx(-0.51 / 3)
    assert found.unpaired == {"e5m2_adamw": (2,)}
    assert any("0 of" in note and "1 of" in note and "Diverged" in note for note in found.notes)
    assert any(note == "Without a partner: e5m2_adamw (seed 2)." for note in found.notes)


def test_conditions_and_seeds_that_one_set_lacks(write: Callable[..., Path]) -> None:
    a = write("a", base, formats=("bf16", "e5m2"), seeds=[0, 1])
    b = write("b", base, formats=("e4m3", "bf16"), seeds=[1, 2])
    found = compare_results(a, b, names=("old", "new"))
    assert found.conditions == ("bf16_adamw", "bf16_manifold_adamw")
    assert found.only == tuple(tuple(f"{fmt}_{s}" for s in SIDES) for fmt in ("e5m2", "e4m3"))
    assert found.unpaired == {"bf16_adamw": (0, 2), "bf16_manifold_adamw": (0, 2)}
    assert "In old alone: e5m2_adamw; e5m2_manifold_adamw." in found.notes
    assert any("no interval" in note for note in found.notes)


def test_nothing_in_common(write: Callable[..., Path]) -> None:
    a, b = write("a", base, formats=("bf16",)), write("b", base, formats=("e5m2",))
    with pytest.raises(UserError, match=r"no condition and seed in common.*bf16_adamw.*e5m2_adamw"):
        compare_results(a, b)


def test_several_suites_are_matched_by_name(
    fabricated: ModuleType, tmp_path: Path, write: Callable[..., Path]
) -> None:
    a, b = write("a", base), write("b", moved)
    for folder, score in ((a, 0.3), (b, 0.4)):
        other = folder.parent / "other"
        lines = measured(fabricated, score)
        fabricated.write_run(other, "e5m2", "adamw", 0, suite="other", lines=lines)
    found = compare(read_sources(a.parent), read_sources(b.parent))
    changes = {change.condition: change.summary for change in found.of(MICRO)}
    assert changes["other: e5m2_adamw"].mean == pytest.approx(0.1)
    assert changes["toy: e5m2_adamw"].mean == pytest.approx(0.025)


def test_runs_that_served_tuning_are_left_out(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    for name in "ab":
        run, tune = (
            f.write_run(tmp_path / name, "e5m2", "adamw", s, lines=measured(f, 0.5)) for s in (0, 7)
        )
        cells = [f.cell("e5m2", "adamw", 0, run), f.cell("e5m2", "adamw", 7, tune)]
        f.write_plan(tmp_path / name, [cells[0], cells[1] | {"stage": "tune"}])
    assert [p.seed for p in compare_results(tmp_path / "a", tmp_path / "b").pairs] == [0]


def test_notes_of_the_sources_go_along(write: Callable[..., Path]) -> None:
    a, b, c = write("a", base), write("b", moved), write("c", base)
    assert any("ended differently" in note for note in compare_results([a, b], c).notes)


@pytest.fixture
def found(write: Callable[..., Path]) -> SetComparison:
    return compare_results(
        write("a", base), write("b", moved, speed=150.0), names=("before", "after")
    )


def test_the_terminals_table(found: SetComparison) -> None:
    out = StringIO()
    Console(file=out, width=120).print(comparison_table(found))
    rows = [line.split() for line in out.getvalue().splitlines() if line.startswith(" e5m2_adamw")]
    assert rows[0][:4] == ["e5m2_adamw", "4", "0", "+0.0250"]
    assert rows[0][4:7] == ["+0.0045", "to", "+0.0455"]
    assert rows[0][-2:] == ["+50.0", "%"]
    assert "A: before, B: after" in out.getvalue()


def test_the_document_has_a_table_per_metric(found: SetComparison) -> None:
    document = comparison_document(found)
    assert document.title == "after against before"
    assert [s.title for s in document.sections] == list(METRICS.values())
    speed = document.sections[-1].blocks[0]
    assert isinstance(speed, Table)
    assert [cell.text for cell in speed.rows[0]][:6] == [
        *("bf16_adamw", "4", "100.0", "150.0", "+50.00", "0")
    ]


def test_the_files(found: SetComparison, tmp_path: Path) -> None:
    paths = write_comparison(found, tmp_path / "deep" / "out")
    assert [p.name for p in paths] == ["comparison.md", "comparison.html", "comparison.csv"]
    pd.testing.assert_frame_equal(
        pd.read_csv(paths[2]), found.frame(), check_dtype=False, rtol=1e-12
    )
    assert "| e5m2\\_adamw | 4 |" in paths[0].read_text()
    assert "e5m2_adamw" in paths[1].read_text()


def test_files_that_cannot_be_written_are_the_users_to_know(
    found: SetComparison, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        write_comparison(found, tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("href", "address"),
    [
        (None, None),
        ("../a b/", "../a%20b/"),
        ("javascript:alert(1)/", "javascript%3Aalert%281%29/"),
        ("https://wandb.ai/team/a%20b/runs/1", "https://wandb.ai/team/a%20b/runs/1"),
        ('http://127.0.0.1:8080/"x"', "http://127.0.0.1:8080/%22x%22"),
    ],
)
def test_addresses_elsewhere_stay_addresses(href: str | None, address: str | None) -> None:
    assert Cell("x", href).address == address
