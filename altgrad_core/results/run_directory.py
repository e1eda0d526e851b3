"""The run directory ``runs/<suite>/<id>/``: the record of one run.

=====================  ===========================================================================
``spec.yaml``          the :class:`~altgrad_core.planning.spec.RunSpec`
``environment.json``   versions, git commit, hardware, device
``status.json``        :class:`Status`
``metrics.jsonl``      one :class:`Record` per line, written as it happens
``checkpoint/``        ``state.pt`` (while the run is not finished) and ``model.safetensors`` (after)
``predictions.npz``    per-example predictions of the final evaluation, keys ``<split>_<array>``
``facts.json``         facts about the task's data, and what was quantised
``log.txt``            what the run printed
=====================  ===========================================================================

Every whole file is written to a temporary file beside it and renamed. Reading this module needs no torch.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from altgrad_core.interfaces.plugin import Settings

StatusName = Literal[
    "pending", "running", "ok", "diverged", "oom", "timeout", "killed", "error", "skipped"
]
FINISHED: frozenset[str] = frozenset({"ok", "diverged"})
"""Statuses that are results. Every other one is run again when the suite is run again."""

RecordKind = Literal["train", "monitor", "evaluation", "final", "event"]


class Status(Settings):
    """Contents of ``status.json``."""

    status: StatusName = "pending"
    step: int = 0
    max_steps: int = 0
    message: str = Field("", description="why, when the status is not ok")
    started: float | None = Field(None, description="Unix time")
    updated: float | None = Field(None, description="Unix time of the last sign of life")
    seconds: float = Field(0.0, description="wall time of the worker, all restarts together")


class Record(Settings):
    """One line of ``metrics.jsonl``.

    Families that the core writes: ``train/all/loss``, ``train/all/learning_rate``;
    ``validation/all/<metric>`` (kind ``evaluation``); ``final/validation/<metric>`` and
    ``final/test/<metric>`` (kind ``final``, one line at the end). Monitors write
    ``family/layer/metric`` (kind ``monitor``). An ``event`` line has ``event`` instead of metrics:
    ``{"kind": ..., "layer": ..., "message": ...}``.
    """

    step: int
    kind: RecordKind
    metrics: dict[str, float | None] = Field(
        default_factory=dict, description="NaN and inf are written as the strings JSON lacks"
    )
    event: dict[str, str] | None = None
