"""A task whose score is planted: a function of format, side, seed, batch size and learning rate."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from altgrad_core.interfaces import Batch, Evaluation, Split, Task, WeightGeometry
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_planted.settings import PlantedSettings

_SHIFT = 0.05
"""How far apart seeds are, on both sides alike."""


class Planted(Task):
    """Trains a layer of 4 × 4 weights that nothing moves.

    Seeds shift both sides alike, by more than any gain, so that nothing is seen without pairing. The
    runs of a format differ from those of another by noise of their own, even under plain.
    """

    head = ("out",)

    def __init__(self, settings: PlantedSettings, metric: str, base: float, sign: int) -> None:
        self.data, self._metric, self._base, self._sign = settings.data, metric, base, sign
        self._seed = self._batch_size = 0

    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None:
        """Nothing to prepare."""

    def facts(self) -> dict[str, Any]:
        """The sizes."""
        return {"examples": {"train": 8, "validation": 8, "test": self.data.examples}}

    def build_model(self) -> nn.Module:
        """Two layers, the second of which is the head."""
        body, out = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        return nn.Sequential(OrderedDict(body=body, out=out))

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Ones."""
        self._seed, self._batch_size = seed, batch_size
        return Batch({"x": torch.ones(batch_size, 4)}, samples=batch_size, tokens=batch_size)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """A number of the order of 1; NaN from the second step on where divergence is planted."""
        loss: Tensor = model(batch.tensors["x"]).square().mean()
        geometry, (side, _) = _marks(model)
        planted = self.data.diverging.get(geometry.format.name, ())
        return loss * math.nan if side == "marked" and self._seed in planted else loss

    def evaluate(
        self,
        model: nn.Module,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        calibration: Mapping[str, float] | None = None,
    ) -> Evaluation:
        """The planted score."""
        geometry, (side, rate) = _marks(model)
        fmt = geometry.format.name
        gain = self.data.gains.get(fmt, 0.0) if side == "marked" else 0.0
        noise = self.data.noises.get(fmt, self.data.noise) / math.sqrt(2)
        score = gain + _SHIFT * _normal(self._seed) + noise * _normal(fmt, side, self._seed)
        score += self.data.per_batch * self._batch_size
        if self.data.best_rate is not None:
            score -= 0.01 * math.log(rate / self.data.best_rate) ** 2
        return Evaluation({self._metric: self._base + self._sign * score})


def _marks(model: nn.Module) -> tuple[WeightGeometry, tuple[str, float]]:
    geometry = next(iter(weight_geometry(model).values()))
    return geometry, getattr(geometry.parameter, "planted", ("", 1.0))


def _normal(*what: object) -> float:
    """A standard normal number that belongs to ``what``."""
    seed = int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:8], "big")
    return float(np.random.default_rng(seed).normal())


def accuracy(settings: PlantedSettings) -> Planted:
    """Scores around 0.5."""
    return Planted(settings, "accuracy", 0.5, 1)


def perplexity(settings: PlantedSettings) -> Planted:
    """Scores around 30."""
    return Planted(settings, "perplexity", 30.0, -1)
