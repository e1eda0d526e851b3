"""Paired differences, worked out by hand, and formats with the same grid."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from altgrad_core.analysis.contrast import between, deltas
from altgrad_core.analysis.grids import equal_grids, same_grid_pairs
from altgrad_core.analysis.groups import Group
from altgrad_core.interfaces.format import Format
from altgrad_core.results.collect import load_results
from altgrad_core.results.stored import Contrast

METRIC = "final/test/f1_micro_tuned"
CONTRAST = Contrast(
    axis="optimizer.type",
    baseline="adamw",
    treatment="manifold_adamw",
    metric="final/test/f1_micro_tuned",
)
SCORES = {
    ("bf16", "adamw"): (0.70, 0.80),
    ("bf16", "manifold_adamw"): (0.70, 0.78),
    ("e5m2", "adamw"): (0.50, 0.60),
    ("e5m2", "manifold_adamw"): (0.53, 0.61),
}


@pytest.fixture
def suite(fabricated: ModuleType, tmp_path: Path) -> Path:
    def lines(fmt: str, optimizer: str, seed: int) -> list[str]:
        return [fabricated.final_line(9, SCORES[fmt, optimizer][seed])]

    fabricated.write_matrix(tmp_path, ["bf16", "e5m2"], [0, 1], lines)
    return tmp_path


def test_differences_are_paired_by_seed(suite: Path) -> None:
    bf16, e5m2 = deltas(load_results(suite), CONTRAST)
    assert (bf16.group, e5m2.group) == ("bf16", "e5m2")
    assert [p.seed for p in e5m2.pairs] == [0, 1]
    assert [p.delta for p in e5m2.pairs] == pytest.approx([0.03, 0.01])
    assert e5m2.delta.mean == pytest.approx(0.02)
    # Half the distance of two values, times the square root of two; unpaired it would be 0.064.
    assert e5m2.delta.std == pytest.approx(0.01 * math.sqrt(2))
    assert e5m2.baseline.mean == pytest.approx(0.55)
    assert e5m2.treatment.mean == pytest.approx(0.57)
    assert e5m2.improved == 2
    assert e5m2.missing == ()
    assert [p.delta for p in bf16.pairs] == pytest.approx([0.0, -0.02])
    assert bf16.improved == 0


def test_another_metric_can_be_asked_for(suite: Path) -> None:
    found = deltas(load_results(suite), CONTRAST, "final/test/f1_macro")
    assert found[1].metric == "final/test/f1_macro"
    assert found[1].baseline.mean == pytest.approx(0.25)
    assert not any(d.pairs for d in deltas(load_results(suite), CONTRAST, "final/test/none"))


def test_a_smaller_loss_is_a_gain(fabricated: ModuleType, tmp_path: Path) -> None:
    f, loss = fabricated, {"adamw": 0.3, "manifold_adamw": 0.2}
    f.write_matrix(
        tmp_path,
        ["e5m2"],
        [0],
        lambda fmt, optimizer, seed: [f.line(9, "final", {"final/test/loss": loss[optimizer]})],
    )
    (found,) = deltas(load_results(tmp_path), CONTRAST, "final/test/loss")
    assert found.delta.mean == pytest.approx(-0.1)
    assert found.gain == pytest.approx(0.1)
    assert found.improved == 1


def test_one_seed_has_a_difference_and_no_deviation(fabricated: ModuleType, tmp_path: Path) -> None:
    fabricated.write_matrix(
        tmp_path, ["e5m2"], [7], lambda f, o, s: [fabricated.final_line(9, SCORES[f, o][0])]
    )
    (found,) = deltas(load_results(tmp_path), CONTRAST)
    assert found.delta.mean == pytest.approx(0.03)
    assert math.isnan(found.delta.std)


def test_diverged_is_a_zero_and_a_missing_run_leaves_its_seed_unpaired(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    f = fabricated
    plan = [
        (0, "ok", 0.5, "diverged", None),
        (1, "ok", 0.5, "oom", None),
        (2, "ok", 0.5, "ok", 0.75),
    ]
    cells = []
    for seed, left, a, right, b in plan:
        for optimizer, status, value in (("adamw", left, a), ("manifold_adamw", right, b)):
            lines = [] if value is None else [f.final_line(9, value)]
            run = f.write_run(tmp_path, "e5m2", optimizer, seed, status=status, lines=lines)
            cells.append(f.cell("e5m2", optimizer, seed, run))
    cells.append(f.cell("e5m2", "adamw", 3, None, skip="no GPU"))
    f.write_plan(tmp_path, cells)
    (found,) = deltas(load_results(tmp_path), CONTRAST)
    assert [(p.seed, p.delta, p.diverged) for p in found.pairs] == [
        (0, -0.5, True),
        (2, 0.25, False),
    ]
    assert found.missing == (1, 3)


def test_other_axes_make_groups_of_their_own(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    for layers in (1, 2):
        for optimizer in ("adamw", "manifold_adamw"):
            axes = {
                "quantization.format": "e5m2",
                "model.num_layers": layers,
                "optimizer.type": optimizer,
                "model.hidden_dim": 16,
            }
            value = 0.1 * layers * (2 if optimizer == "adamw" else 3)
            f.write_run(tmp_path, "e5m2", optimizer, 0, axes=axes, lines=[f.final_line(9, value)])
    found = deltas(load_results(tmp_path), CONTRAST)
    assert sorted(d.group for d in found) == ["num_layers=1", "num_layers=2"]
    assert sorted(d.delta.mean for d in found) == pytest.approx([0.1, 0.2])


def test_an_infinite_score_leaves_its_seed_unpaired(fabricated: ModuleType, tmp_path: Path) -> None:
    f = fabricated
    loss = {("adamw", 0): 0.3, ("manifold_adamw", 0): 0.2, ("adamw", 1): math.inf}
    f.write_matrix(
        tmp_path,
        ["e5m2"],
        [0, 1],
        lambda fmt, o, s: [f.line(9, "final", {"final/test/loss": loss.get((o, s), 0.1)})],
    )
    (found,) = deltas(load_results(tmp_path), CONTRAST, "final/test/loss")
    assert [p.seed for p in found.pairs] == [0]
    assert found.missing == (1,)
    assert found.gains == pytest.approx((0.1,))


def test_the_lead_of_one_treatment_over_another(suite: Path) -> None:
    bf16, e5m2 = deltas(load_results(suite), CONTRAST)
    found = between(e5m2, bf16, Group("lead"))
    assert [p.seed for p in found.pairs] == [0, 1]
    assert [p.delta for p in found.pairs] == pytest.approx([0.53 - 0.70, 0.61 - 0.78])


def test_a_suite_without_the_axis_or_a_side_has_no_difference(suite: Path) -> None:
    results = load_results(suite)
    nowhere = CONTRAST.model_copy(update={"axis": "model.type"})
    nobody = CONTRAST.model_copy(update={"treatment": "sgd"})
    assert deltas(results, nowhere) == []
    assert deltas(results, nobody) == []


class Values(Format):
    """A format that is nothing but its values."""

    def __init__(self, *values: float, scaled: bool = True, bits: int = 8) -> None:
        self.values, self.scaled, self.bits = values, scaled, bits

    def code_values(self) -> Tensor:
        assert self.bits <= 16
        return torch.tensor(self.values)


def test_grids_are_compared_up_to_powers_of_two() -> None:
    one = Values(-3.0, 0.0, -0.0, 1.0, 3.0)
    pairs = same_grid_pairs(
        {
            "one": one,
            "quarter": Values(-0.75, 0.0, 0.25, 0.75, math.nan, math.inf),
            "tripled": Values(-9.0, 0.0, 3.0, 9.0),
            "lopsided": Values(0.0, 1.0, 3.0),
            "fixed": Values(-3.0, 0.0, 1.0, 3.0, scaled=False),
            "wide": Values(bits=32),
        }
    )
    assert pairs == (("one", "quarter"),)


def test_equal_grids_of_a_suite_come_from_its_formats(
    fabricated: ModuleType, tmp_path: Path
) -> None:
    for fmt in ("bf16", "fp32", "e1m6", "e5m2", "e0m7", "uninstalled"):
        fabricated.write_run(tmp_path, fmt, "adamw", 0)
    (pair,) = equal_grids(tmp_path)
    assert set(pair) == {"e0m7", "e1m6"}
