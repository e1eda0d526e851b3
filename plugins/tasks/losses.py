"""Losses for multi-label targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from altgrad_plugins.tasks.settings import ModelSettings

BALANCED_RANGE = (1.0, 20.0)


def positive_weight(
    choice: Literal["balanced"] | float | None, counts: Sequence[int], examples: int
) -> Tensor | None:
    """Weight of the positive term for each label, shape (labels,), or ``None`` for 1.

    ``balanced`` is negatives / positives of the training split, clipped to 1 to 20: the raw ratio
    of a rare label would drown the others.
    """
    if choice is None:
        return None
    positives = torch.tensor(counts, dtype=torch.float32)
    if choice == "balanced":
        return ((examples - positives) / positives).clamp(*BALANCED_RANGE)
    return torch.full_like(positives, choice)


def multilabel_loss(
    logits: Tensor, targets: Tensor, settings: ModelSettings, pos_weight: Tensor | None = None
) -> Tensor:
    """Mean loss over all entries, 0-d, in float32.

    ``bce`` is binary cross-entropy; ``focal`` multiplies each entry with ``(1 - p_t)^gamma``, where
    ``p_t`` is the probability given to the truth (Lin et al. 2017, without their alpha:
    ``pos_weight`` serves that end). Logits and targets have the shape (n, labels), ``pos_weight``
    (labels,).
    """
    logits = logits.float()
    if settings.loss == "bce":
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight)
    entropy = F.binary_cross_entropy_with_logits(
        logits, targets, pos_weight=pos_weight, reduction="none"
    )
    # 1 - p_t = sigmoid(-z) for positives and sigmoid(z) for negatives, without cancellation.
    miss = torch.sigmoid(logits * (1.0 - 2.0 * targets))
    return (miss.pow(settings.focal_gamma) * entropy).mean()
