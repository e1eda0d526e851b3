"""Conformance checks for plugins of any author. Importing this does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from altgrad_core._lazy import lazy_exports

if TYPE_CHECKING:
    from altgrad_core.testing.executors import check_executor
    from altgrad_core.testing.formats import check_format
    from altgrad_core.testing.inventory import Subject, subjects
    from altgrad_core.testing.monitors import check_monitor
    from altgrad_core.testing.offers import check_offer
    from altgrad_core.testing.optimizers import check_optimizer
    from altgrad_core.testing.rules import Fault
    from altgrad_core.testing.sample_suite import sample_findings
    from altgrad_core.testing.sections import check_section
    from altgrad_core.testing.tasks import check_task
    from altgrad_core.testing.trackers import check_tracker

__all__ = [
    "Fault",
    "Subject",
    "check_executor",
    "check_format",
    "check_monitor",
    "check_offer",
    "check_optimizer",
    "check_section",
    "check_task",
    "check_tracker",
    "sample_findings",
    "subjects",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Fault": "rules",
        "Subject": "inventory",
        "check_executor": "executors",
        "check_format": "formats",
        "check_monitor": "monitors",
        "check_offer": "offers",
        "check_optimizer": "optimizers",
        "check_section": "sections",
        "check_task": "tasks",
        "check_tracker": "trackers",
        "sample_findings": "sample_suite",
        "subjects": "inventory",
    },
)
