"""Layers without weights, which a model may have (a head of no labels), are stepped like any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.registry.catalog import catalog

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    *[(name, {}) for name in ("adamw", "grid_optim", "lion", "madam", "sgd")],
    *[(name, {"site": "both"}) for name in ("sgd", "manifold_adamw")],
    *[("manifold_adamw", {"stiffness": kind}) for kind in ("permuted", "constant", "textbook")],
    ("manifold_adamw", {"stiffness": "borrowed", "borrowed_format": "e5m2"}),
]


@pytest.mark.parametrize(("name", "settings"), OPTIMIZERS)
@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_a_layer_without_weights_is_stepped(
    name: str, settings: dict[str, Any], shape: tuple[int, int]
) -> None:
    model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(*shape)])
    quantize_model(model, load_format("e4m3"))
    plugin = catalog().build("optimizer", name, settings)
    optimizer = plugin.build(
        [{"params": list(model.parameters())}],
        {g.parameter: g for g in weight_geometry(model).values()},
        learning_rate=0.1,
        generator=torch.Generator().manual_seed(0),
    )
    before = model[0].weight.detach().clone()
    for _ in range(2):
        for layer in model:
            layer(torch.ones(2, layer.in_features)).sum().backward()
        optimizer.step()
    assert not torch.equal(model[0].weight, before)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
