"""A tracker for Weights & Biases, online, offline (``wandb sync`` later) or disabled.

The run has the id of the cell: a run that goes on after an interruption continues the same wandb
run. The resolved settings are its config, metrics keep their names, and events that ask for
attention become alerts. The final status and metrics are in its summary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.tracker import RunInfo, Tracker
from altgrad_plugins.trackers.settings import WandbSettings

_TITLE_LENGTH = 63
"""Longest title of an alert that wandb takes."""
_RESULTS = ("ok", "diverged")
"""Statuses that are results; every other one is shown as a failed run."""


class WandbTracker(Tracker):
    """Logs to one wandb run. Needs a login (``wandb login``, ``WANDB_API_KEY``) when online."""

    def __init__(self, settings: WandbSettings) -> None:
        self.settings = settings
        self._run: Any = None

    def start(self, run: RunInfo) -> None:
        """Open the wandb run. Raises what ``wandb.init`` raises, e.g. without a login."""
        import wandb

        settings = self.settings
        self._run = wandb.init(
            id=run.id,
            resume="allow",
            mode=settings.mode,
            project=settings.project,
            entity=settings.entity,
            group=settings.group or run.suite,
            name=settings.name or f"{run.condition}_seed{run.seed}",
            tags=list(settings.tags),
            dir=str(run.directory),
            config=dict(run.settings),
            force=True,  # without a login fail, rather than offer another mode at a prompt
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step; several calls for one step are merged."""
        self._run.log(dict(metrics), step=step)

    def event(self, step: int, event: Event) -> None:
        """Send an alert for an event that asks for one."""
        if event.alert:
            title = f"{event.kind} {event.layer}"[:_TITLE_LENGTH]
            text = f"step {step}, {event.layer}: {event.message}"
            self._run.alert(title=title, text=text, level="WARN")

    def finish(self, status: str, summary: Mapping[str, float]) -> None:
        """Write the summary and close the run, which waits for the upload."""
        self._run.summary.update({**summary, "status": status})
        self._run.finish(exit_code=0 if status in _RESULTS else 1)
