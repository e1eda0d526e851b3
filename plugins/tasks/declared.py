"""What multi-label classification measures. Free of torch, since planning reads it.

Scores of decisions come twice: at the threshold 0.5, and at the one that was tuned on validation data.
"""

from __future__ import annotations

from collections.abc import Iterator

from altgrad_core.interfaces.metric import Metric

_CURVES = ("f1_micro_tuned", "f1_macro_tuned")
_THRESHOLDS = (("_tuned", "tuned"), ("", "at\N{NO-BREAK SPACE}0.5"))


def _averaged(score: str, title: str) -> Iterator[Metric]:
    for suffix, when in _THRESHOLDS:
        for average in ("micro", "macro"):
            name = f"{score}_{average}{suffix}"
            primary = name == "f1_micro_tuned"
            label = f"{title} {average}, {when}"
            yield Metric(name, label, "higher", 0.0, primary, name in _CURVES)


def _whole() -> Iterator[Metric]:
    for suffix, when in _THRESHOLDS:
        yield Metric(f"subset_accuracy{suffix}", f"Subset accuracy, {when}", "higher", 0.0)
        yield Metric(f"hamming_loss{suffix}", f"Hamming loss, {when}", "lower", 1.0)


METRICS: tuple[Metric, ...] = (
    *_averaged("f1", "F1"),
    Metric("loss", "Loss", "lower", curve=True),
    *_averaged("precision", "Precision"),
    *_averaged("recall", "Recall"),
    *_whole(),
    Metric("roc_auc_micro", "ROC AUC, micro", "higher", 0.0),
    Metric("pr_auc_micro", "Average precision, micro", "higher", 0.0),
)
"""The metrics of ``eurlex`` and ``license_rules``, what matters most first. A loss has no worst value."""
