from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from altgrad_core.errors import UserError
from altgrad_core.planning.plan import Plan
from altgrad_core.planning.spec import LAYOUT, RunSpec
from altgrad_core.planning.spec_file import dump_spec, load_spec

PlanOf = Callable[..., Plan]


@pytest.fixture
def spec(plan_of: PlanOf) -> RunSpec:
    text = """\
        model: {pretrained: "1e5"}
        training: {learning_rate: 0.1, max_grad_norm: 1e-300}
        monitors: all
        quantization:
          overrides: [{pattern: "*.q", format: {name: exmy, exponent_bits: 3}}]
        matrix: {quantization.format: [{name: exmy, exponent_bits: 4}]}
        """
    return plan_of(text).specs[0]


def test_a_spec_survives_its_file(spec: RunSpec, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(dump_spec(spec))
    assert load_spec(file) == spec
    assert RunSpec.model_validate(yaml.safe_load(file.read_text())) == spec
    assert yaml.safe_load(file.read_text())["layout"] == LAYOUT


def test_another_layout_is_refused_with_what_to_do(spec: RunSpec, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(dump_spec(spec.model_copy(update={"layout": LAYOUT + 1})))
    with pytest.raises(UserError, match=rf"layout is {LAYOUT + 1}, .* --runs"):
        load_spec(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no run's spec: it has no 'layout'"),
        ("- 1", "is no run's spec"),
        ("a: [1", "cannot be read"),
        (f"layout: {LAYOUT}\nid: x", "suite: this key is required"),
        ("!!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        load_spec(file)
    with pytest.raises(UserError, match="cannot be read"):
        load_spec(tmp_path / "missing.yaml")
