"""What multi-label classification measures. Free of torch, since planning reads it.

Scores of decisions come twice: at the threshold 0.5, and at the one that was tuned on validation data.
"""

from __future__ import annotations

from collections.abc import Iterator

from altgrad_core.interfaces.metric import Metric

_CURVES = ("f1_micro_tuned", "f1_macro_tuned")
_AVERAGED = (("f1", "F1"), ("precision", "Precision"), ("recall", "Recall"))
_HALF = "at\N{NO-BREAK SPACE}0.5"


def _decisions() -> Iterator[Metric]:
    for suffix, when in (("_tuned", "tuned"), ("", _HALF)):
        for score, title in _AVERAGED:
            for average in ("micro", "macro"):
                name = f"{score}_{average}{suffix}"
                label = f"{title} {average}, {when}"
                primary = name == "f1_micro_tuned"
                yield Metric(name, label, "higher", 0.0, primary, name in _CURVES)
        yield Metric(f"subset_accuracy{suffix}", f"Subset accuracy, {when}", "higher", 0.0)
        yield Metric(f"hamming_loss{suffix}", f"Hamming loss, {when}", "lower", 1.0)


METRICS: tuple[Metric, ...] = (
    *_decisions(),
    Metric("roc_auc_micro", "ROC AUC, micro", "higher", 0.0),
    Metric("pr_auc_micro", "Average precision, micro", "higher", 0.0),
    Metric("loss", "Loss", "lower", curve=True),
)
"""The metrics of ``eurlex`` and ``license_rules``. A loss has no worst value."""
