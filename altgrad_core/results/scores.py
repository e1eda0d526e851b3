"""What is known of final metrics by their names: which way is better, and what is worst."""

from __future__ import annotations

import math


def worst_score(metric: str) -> float:
    """The worst value of a final metric; NaN for those without one, such as a loss."""
    name = metric.rpartition("/")[2]
    if name == "hamming_loss":
        return 1.0
    bounded = ("f1_", "precision_", "recall_", "subset_accuracy", "roc_auc", "pr_auc")
    return 0.0 if name.startswith(bounded) else math.nan


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of a final metric is the better one, as with every loss."""
    return metric.endswith("loss")
