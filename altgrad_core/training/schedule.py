"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from altgrad_core.training.settings import TrainingSettings


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """The rate of ``step`` (from 1): linear warm-up to the peak, then the schedule down to zero after the last step."""
    peak = settings.learning_rate
    if step <= settings.warmup_steps:
        return peak * step / settings.warmup_steps
    done = (step - 1 - settings.warmup_steps) / max(1, settings.max_steps - settings.warmup_steps)
    if settings.schedule == "linear":
        return peak * (1 - done)
    if settings.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak
