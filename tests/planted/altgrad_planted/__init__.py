"""A small third-party package whose scores are what a suite says: the planted truths of the tests.

Two tasks (an accuracy, and a perplexity without a worst value), two optimizers that do nothing but
say which side of a contrast they are, and an executor that forks its workers from a process that has
imported everything already, so that a suite of a hundred runs takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from altgrad_core.interfaces import Offer, hookimpl
from altgrad_core.interfaces.metric import Metric
from altgrad_planted.settings import MarkerSettings, PlantedSettings


@hookimpl
def altgrad_tasks() -> Iterable[Offer]:
    """One task whose scores have a worst value, and one whose scores have none."""
    return [
        Offer(
            name="planted_accuracy",
            summary="scores that the suite plants; higher is better",
            target="altgrad_planted.task:accuracy",
            settings=PlantedSettings,
            metrics=(
                Metric("accuracy", "Accuracy", "higher", worst=0.0, primary=True, curve=True),
            ),
        ),
        Offer(
            name="planted_perplexity",
            summary="scores that the suite plants; lower is better, without a worst",
            target="altgrad_planted.task:perplexity",
            settings=PlantedSettings,
            metrics=(Metric("perplexity", "Perplexity", "lower", primary=True, curve=True),),
        ),
    ]


@hookimpl
def altgrad_optimizers() -> Iterable[Offer]:
    """The two sides."""
    return [
        Offer(
            name=name,
            summary=f"leaves weights alone and marks them as {name}",
            target=f"altgrad_planted.optimizers:{name}",
            settings=MarkerSettings,
        )
        for name in ("plain", "marked")
    ]


@hookimpl
def altgrad_executors() -> Iterable[Offer]:
    """Workers without the cost of their imports."""
    return [
        Offer(
            name="forked",
            summary="one forked child per run, one at a time",
            target="altgrad_planted.executor:Forked",
        )
    ]
