"""The table that the compiled step of ``manifold_adamw`` is given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from altgrad_plugins.optimizers.compiled_adamw import PEAK, Common, update
from altgrad_plugins.optimizers.settings import ManifoldAdamWSettings


class Row(NamedTuple):
    """One tensor, in the columns that :mod:`.compiled_adamw` names."""

    places: tuple[int, ...]
    level: tuple[int, ...]


def launch(
    group: Mapping[str, Any], settings: ManifoldAdamWSettings, rows: Sequence[Row], lanes: int
) -> tuple[list[bool], list[int]]:
    """One step: which rows have been done, and the exponent field of the largest weight of each."""
    if not rows:
        return [], []
    beta1, beta2 = group["betas"]
    limit = math.inf if settings.max_stiffness is None else settings.max_stiffness
    common = Common(group["lr"], beta1, beta2, group["eps"], group["weight_decay"], limit)
    site = settings.site
    where = site in ("pre", "both"), site in ("post", "both"), settings.normalize == "rms"
    places = np.array([row.places for row in rows], np.int64)
    levels = np.array([row.level for row in rows], np.int32)
    done = np.zeros(len(rows), np.bool_)
    update(places, levels, np.array(common, np.float64), np.array(where), lanes, done)
    return done.tolist(), levels[:, PEAK].tolist()
