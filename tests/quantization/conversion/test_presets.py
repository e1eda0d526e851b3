"""The setting ``layers``: which layers of the body get the format, and what the others have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.quantization.from_settings import quantize_from_settings
from altgrad_core.quantization.report import QuantizationReport
from altgrad_core.quantization.settings import QuantizationSettings
from altgrad_core.registry.build import load_format

GROUPS = {"attention": ("*.attn",), "mlp": ("*.mlp", "*.other")}


def quantize(groups: Any = GROUPS, **settings: Any) -> QuantizationReport:
    torch.manual_seed(0)
    block = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("attn", "mlp", "out")})
    model = nn.ModuleDict({"body": block, "head": nn.Linear(4, 2)})
    chosen = QuantizationSettings.model_validate({"format": "e5m2", **settings})

    def load(choice: Any) -> Any:
        return load_format(choice.name)

    return quantize_from_settings(model, chosen, ("head",), load, None, groups)


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({"layers": "mlp_only"}, {"attn": "bf16", "mlp": "e5m2", "out": "bf16"}),
        ({"layers": "attention_only"}, {"attn": "e5m2", "mlp": "bf16", "out": "bf16"}),
        ({"layers": "attention_only", "rest_format": "e3m4"}, {"attn": "e5m2", "mlp": "e3m4", "out": "e3m4"}),
        ({"layers": "mlp_only", "rest_format": None}, {"mlp": "e5m2"}),
        ({"layers": "all"}, {"attn": "e5m2", "mlp": "e5m2", "out": "e5m2"}),
        (
            {"layers": "mlp_only", "overrides": [{"pattern": "body.out", "format": "e4m3"}]},
            {"attn": "bf16", "mlp": "e5m2", "out": "e4m3"},
        ),
    ],
)  # fmt: skip
def test_a_preset_picks_a_group_of_the_body(
    settings: dict[str, Any], layers: dict[str, str]
) -> None:
    report = quantize(**settings)
    assert report.layers == {f"body.{name}": fmt for name, fmt in layers.items()}
    assert report.skipped["head"] == "head, quantize_classifier: false"


def test_the_head_goes_along_with_the_body() -> None:
    assert set(quantize(layers="body_and_head").layers.values()) == {"e5m2"}
    assert "head" in quantize(layers="body_and_head").layers
    assert quantize(layers="mlp_only", quantize_classifier=True).layers["head"] == "e5m2"


@pytest.mark.parametrize(
    ("groups", "settings", "problem"),
    [
        ({}, {}, "the task names no such group; it names none"),
        ({"attention": ("*.attn",)}, {}, "it names attention"),
        ({"mlp": ("*.ffn",)}, {}, r"picks the layers \*.ffn, and none"),
        (GROUPS, {"quantize_encoder": False}, "quantize_encoder is false"),
    ],
)
def test_a_preset_that_picks_nothing_is_refused(
    groups: Any, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        quantize(groups, layers="mlp_only", **settings)
