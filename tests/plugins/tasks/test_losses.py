"""Losses against their definitions in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from altgrad_plugins.tasks.losses import multilabel_loss, positive_weight
from altgrad_plugins.tasks.settings import ModelSettings

TARGETS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
LOGITS = torch.tensor([[0.3, -2.0, 4.0], [1.5, 0.0, -3.0]])


def _by_definition(gamma: float, weight: Tensor | None) -> float:
    """-w y (1-p)^g log p - (1-y) p^g log(1-p), averaged."""
    p, y = torch.sigmoid(LOGITS.double()), TARGETS.double()
    w = torch.ones(3).double() if weight is None else weight.double()
    positive = -w * y * (1 - p) ** gamma * torch.log(p)
    negative = -(1 - y) * p**gamma * torch.log(1 - p)
    return float((positive + negative).mean())


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 3.0, 0.5])])
@pytest.mark.parametrize(
    ("settings", "gamma"),
    [
        (ModelSettings(), 0.0),
        (ModelSettings(loss="focal"), 2.0),
        (ModelSettings(loss="focal", focal_gamma=0.5), 0.5),
        (ModelSettings(loss="focal", focal_gamma=0.0), 0.0),
    ],
)
def test_losses_follow_their_definition(
    settings: ModelSettings, gamma: float, weight: Tensor | None
) -> None:
    loss = multilabel_loss(LOGITS, TARGETS, settings, weight)
    assert loss.item() == pytest.approx(_by_definition(gamma, weight), rel=1e-6)


@pytest.mark.parametrize("loss", ["bce", "focal"])
def test_extreme_logits_keep_finite_losses_and_gradients(loss: Any) -> None:
    logits = torch.tensor([[200.0, -200.0, -200.0]], requires_grad=True)
    value = multilabel_loss(logits, torch.tensor([[0.0, 1.0, 0.0]]), ModelSettings(loss=loss))
    value.backward()
    assert value.item() == pytest.approx(400 / 3, rel=1e-6)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_half_precision_logits_are_widened_first() -> None:
    loss = multilabel_loss(LOGITS.bfloat16(), TARGETS, ModelSettings())
    assert loss.dtype == torch.float32
    assert loss.item() == multilabel_loss(LOGITS.bfloat16().float(), TARGETS, ModelSettings())


def test_weights_of_positives() -> None:
    assert positive_weight(None, [1, 2], 10) is None
    balanced = positive_weight("balanced", [1, 25, 80], 100)
    assert balanced is not None
    assert balanced.tolist() == [20.0, 3.0, 1.0]
    fixed = positive_weight(2.5, [1, 2], 10)
    assert fixed is not None
    assert fixed.tolist() == [2.5, 2.5]
