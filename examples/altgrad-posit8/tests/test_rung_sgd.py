from __future__ import annotations

import torch
from altgrad_posit8.posit8 import Posit8
from altgrad_posit8.rung_sgd import RungSGD, RungSGDPlugin
from altgrad_posit8.settings import RungSGDSettings
from torch import nn

from altgrad_core import quantize_model
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.testing.optimizers import check_optimizer


def test_the_contract() -> None:
    check_optimizer(RungSGDPlugin(RungSGDSettings()), fmt=Posit8(), learning_rate=0.5)


def test_the_learning_rate_counts_rungs() -> None:
    layer = nn.Linear(64, 64, bias=False)
    quantize_model(layer, Posit8())
    (geometry,) = weight_geometry(layer).values()
    optimizer = RungSGD(
        [{"params": [layer.weight]}], {layer.weight: geometry}, RungSGDSettings(), 2.0
    )
    before, gap = layer.weight.detach().clone(), geometry.ulp(layer.weight)
    layer.weight.grad = 1 / gap  # a gradient of one per rung
    optimizer.step()
    torch.testing.assert_close((before - layer.weight.detach()) / gap, torch.full_like(gap, 2.0))
