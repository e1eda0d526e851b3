from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from altgrad_core.errors import UserError
from altgrad_core.planning.export import export_plan
from altgrad_core.planning.plan import Plan
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite
from altgrad_core.registry.catalog import Catalog

PlanOf = Callable[..., Plan]

TEXT = """\
description: "Two formats: a test"
seeds: [0, 7]
monitors: [flips, {rank: {interval: 3}}]
trackers: [jsonl]
model: {pretrained: "1e-5"}
training: {learning_rate: 3e-5, max_grad_norm: null}
quantization:
  scaling: delayed
  overrides: [{pattern: "*.q", format: {name: exmy, exponent_bits: 3}}, {pattern: x, format: null}]
zip:
  optimizer.type: [adamw, manifold_adamw]
  training.max_steps: [5, 6]
matrix:
  quantization.format: [bf16, {name: exmy, exponent_bits: 4}, rare]
"""


def test_exported_suites_run_alone_with_the_same_ids(
    plan_of: PlanOf, stubs: Catalog, tmp_path: Path
) -> None:
    plan = plan_of(TEXT, "data.path=here")
    paths = export_plan(plan, tmp_path / "out")
    expected = ["bf16_adamw", "bf16_manifold", "x4m2_adamw", "x4m2_manifold"]  # rare is skipped
    assert [path.name for path in paths] == [f"{label}.yaml" for label in expected]
    for label, path in zip(expected, paths, strict=True):
        alone = plan_suite(load_suite(path), stubs)
        cells = [cell for cell in plan.cells if cell.label == label]
        assert [cell.seed for cell in alone.cells] == [0, 7]
        for cell, own in zip(cells, alone.specs, strict=True):
            assert cell.spec is not None
            names = {"suite": own.suite, "condition": own.condition, "axes": own.axes}
            assert own == cell.spec.model_copy(update=names)
            assert own.condition == label
        assert alone.suite.name == f"tried-{label}"
        assert path.read_text().startswith(f"# {label} of the suite tried, ")


def test_exporting_again_changes_nothing(plan_of: PlanOf, tmp_path: Path) -> None:
    plan = plan_of(TEXT)
    first = {path: path.stat().st_mtime_ns for path in export_plan(plan, tmp_path)}
    assert set(export_plan(plan, tmp_path)) == set(first)


def test_other_files_are_never_overwritten(plan_of: PlanOf, tmp_path: Path) -> None:
    mine = tmp_path / "x4m2_adamw.yaml"
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"nothing was written: x4m2_adamw.yaml\."):
        export_plan(plan_of(TEXT), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    assert mine.read_text() == "mine"
    with pytest.raises(UserError, match="is a file: name a folder"):
        export_plan(plan_of(TEXT), mine)


def test_only_the_seeds_of_the_plan_are_exported(plan_of: PlanOf, tmp_path: Path) -> None:
    text = "seeds: [0, 1]\nexclude: [{seed: 0, optimizer.type: manifold_adamw}]\n"
    plan = plan_of(text + "matrix: {optimizer.type: [adamw, manifold_adamw]}")
    adamw, manifold = export_plan(plan, tmp_path)
    assert load_suite(adamw).seeds == (0, 1)
    assert load_suite(manifold).seeds == (1,)
