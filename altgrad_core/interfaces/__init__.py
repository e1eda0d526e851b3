"""What a plugin must be. Importing this package does not import torch; its names do, when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from altgrad_core._lazy import lazy_exports
from altgrad_core.errors import UserError
from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.plugin import (
    CONTRACT,
    Kind,
    Need,
    NoSettings,
    Offer,
    Settings,
    hookimpl,
)

if TYPE_CHECKING:
    from altgrad_core.interfaces.executor import Executor, Exit, Job
    from altgrad_core.interfaces.format import Format, Overflow, Rounding
    from altgrad_core.interfaces.geometry import WeightGeometry
    from altgrad_core.interfaces.monitor import (
        Clock,
        Event,
        Monitor,
        Observation,
        RunView,
        StepView,
    )
    from altgrad_core.interfaces.optimizer import OptimizerPlugin
    from altgrad_core.interfaces.section import Findings, Section
    from altgrad_core.interfaces.task import Batch, Evaluation, Split, Task
    from altgrad_core.interfaces.tracker import RunInfo, Tracker

_EXPORTS = {
    "Batch": "task",
    "Clock": "monitor",
    "Evaluation": "task",
    "Event": "monitor",
    "Executor": "executor",
    "Exit": "executor",
    "Findings": "section",
    "Format": "format",
    "Job": "executor",
    "Monitor": "monitor",
    "Observation": "monitor",
    "OptimizerPlugin": "optimizer",
    "Overflow": "format",
    "Rounding": "format",
    "RunInfo": "tracker",
    "RunView": "monitor",
    "Section": "section",
    "Split": "task",
    "StepView": "monitor",
    "Task": "task",
    "Tracker": "tracker",
    "WeightGeometry": "geometry",
}

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
__all__ = [
    "CONTRACT",
    "Batch",
    "Clock",
    "Evaluation",
    "Event",
    "Executor",
    "Exit",
    "Findings",
    "Format",
    "Job",
    "Kind",
    "Metric",
    "Monitor",
    "Need",
    "NoSettings",
    "Observation",
    "Offer",
    "OptimizerPlugin",
    "Overflow",
    "Rounding",
    "RunInfo",
    "RunView",
    "Section",
    "Settings",
    "Split",
    "StepView",
    "Task",
    "Tracker",
    "UserError",
    "WeightGeometry",
    "hookimpl",
]
