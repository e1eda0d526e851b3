"""Every matrix of a body's blocks is attention or feed-forward, and in one group only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from altgrad_core.quantization.from_settings import quantize_from_settings
from altgrad_core.quantization.settings import QuantizationSettings
from altgrad_core.registry.build import load_format
from altgrad_plugins.tasks.layer_groups import LAYER_GROUPS

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 12,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}


def _model(kind: str) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    feed = {"gpt2": "n_inner", "distilbert": "hidden_dim"}.get(kind, "intermediate_size")
    config = AutoConfig.for_model(kind, **SIZES, **{feed: 24})
    return nn.ModuleDict({"body": AutoModel.from_config(config, dtype=torch.float32)})


def _quantized(kind: str, layers: str) -> set[str]:
    settings = QuantizationSettings.model_validate(
        {"format": "e5m2", "layers": layers, "rest_format": None}
    )
    report = quantize_from_settings(
        _model(kind), settings, (), lambda choice: load_format(choice.name), None, LAYER_GROUPS
    )
    return set(report.layers)


@pytest.mark.parametrize(
    ("kind", "attention", "mlp"),
    [("bert", 4, 2), ("roberta", 4, 2), ("distilbert", 4, 2), ("gpt2", 2, 2), ("llama", 4, 3)],
)
def test_the_groups_divide_the_blocks(kind: str, attention: int, mlp: int) -> None:
    found = {group: _quantized(kind, f"{group}_only") for group in LAYER_GROUPS}
    assert {group: len(names) for group, names in found.items()} == {
        "attention": 12 * attention,
        "mlp": 12 * mlp,
    }
    assert not found["attention"] & found["mlp"]
    outside = _quantized(kind, "all") - found["attention"] - found["mlp"]
    assert outside <= {"body.pooler.dense"}
