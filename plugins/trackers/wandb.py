"""A tracker for Weights & Biases, online, offline (``wandb sync`` later) or disabled.

The run has the id of the cell: a run that goes on after an interruption continues the same wandb
run. The resolved settings are its config, metrics keep their names, and events that ask for
attention become alerts. The final status and metrics are in its summary, and so are the events, as a
list. What the run directory knows beyond that is one JSON text in the config and one in the summary,
both under ``altgrad_bench``: with it, ``altgrad-bench report --from wandb:ENTITY/PROJECT`` makes the
same tables as from the run directories.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from altgrad_core.errors import UserError
from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.tracker import RunInfo, Tracker
from altgrad_plugins.trackers.run_files import text_at_end, text_at_start
from altgrad_plugins.trackers.settings import LONGEST_NAME, WandbSettings

_TITLE_LENGTH = 63
"""Longest title of an alert that wandb takes."""
_ONLINE = ("online", "shared", "run")
_LOGIN = (
    "Run `wandb login` or set WANDB_API_KEY; or set mode: offline (or WANDB_MODE=offline), and send "
    "the runs later with `wandb sync`."
)
_RESULTS = ("ok", "diverged")
"""Statuses that are results; every other one is shown as a failed run."""
_FILES = "altgrad_bench"
"""Key, in config and summary, of the texts from the run directory."""
_MOST_EVENTS = 200
"""Events kept in the summary, which is sent anew with each; later ones are counted."""


class WandbTracker(Tracker):
    """Logs to one wandb run. Needs a login (``wandb login``, ``WANDB_API_KEY``) when online.

    What its settings leave open follows wandb's own conventions (``WANDB_MODE``, ``WANDB_PROJECT``,
    ``WANDB_ENTITY``, ``WANDB_TAGS``, settings files); group and name have defaults here.
    """

    def __init__(self, settings: WandbSettings) -> None:
        self.settings = settings
        self._run: Any = None
        self._directory = Path()
        self._events: list[dict[str, Any]] = []
        self._left_out = 0

    def ready(self) -> None:
        """``UserError`` where wandb refuses its surroundings, or has no login that its server takes."""
        import wandb

        try:
            surroundings = wandb.setup(wandb.Settings(silent=True)).settings
        except (ValueError, wandb.errors.UsageError) as error:
            why = " ".join(str(error).split())
            raise UserError(f"wandb refuses its environment variables: {why}") from error
        if (self.settings.mode or surroundings.mode) not in _ONLINE:
            return
        if not (wandb.api.api_key or os.environ.get("WANDB_IDENTITY_TOKEN_FILE")):
            raise UserError(f"there is no login at W&B. {_LOGIN}")
        try:
            wandb.login(verify=True, force=True)
        except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
            raise UserError(
                f"the login at W&B could not be verified ({error}). {_LOGIN}"
            ) from error

    def start(self, run: RunInfo) -> None:
        """Open the wandb run. Raises what ``wandb.init`` raises, e.g. without a login."""
        import wandb

        settings = self.settings
        self._directory = run.directory
        self._run = wandb.init(
            id=run.id,
            resume="allow",
            mode=settings.mode,
            project=settings.project,
            entity=settings.entity,
            group=settings.group or _unless_set("WANDB_RUN_GROUP", run.suite[:LONGEST_NAME]),
            name=settings.name or _unless_set("WANDB_NAME", _title(run)),
            tags=list(settings.tags) if settings.tags is not None else None,
            dir=str(run.directory),
            config={**run.settings, _FILES: text_at_start(run)},
            force=True,  # without a login fail, rather than offer another mode at a prompt
            settings=wandb.Settings(console="off", silent=True),
        )
        self._events = [dict(event) for event in self._run.summary.get("events") or ()]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step; several calls for one step are merged."""
        self._run.log(dict(metrics), step=step)

    def event(self, step: int, event: Event) -> None:
        """Keep the event in the summary, and send an alert if it asks for one."""
        self._keep(
            {"step": step, "kind": event.kind, "layer": event.layer, "message": event.message}
        )
        if event.alert:
            title = f"{event.kind} {event.layer}"[:_TITLE_LENGTH]
            text = f"step {step}, {event.layer}: {event.message}"
            self._run.alert(title=title, text=text, level="WARN")

    def finish(self, status: str, summary: Mapping[str, float]) -> None:
        """Write the summary and close the run, which waits for the upload."""
        files = {_FILES: text_at_end(self._directory)}
        self._run.summary.update({**summary, "status": status, **files})
        self._run.finish(exit_code=0 if status in _RESULTS else 1)

    def _keep(self, event: dict[str, Any]) -> None:
        """Add an event, unless the run has reported it before an interruption."""
        if event in self._events:
            return
        if len(self._events) < _MOST_EVENTS:
            self._events.append(event)
            self._run.summary["events"] = list(self._events)
        else:
            self._left_out += 1
            self._run.summary["events_left_out"] = self._left_out


def _unless_set(variable: str, default: str) -> str | None:
    """None, which leaves it to wandb, where the environment says it."""
    return None if os.environ.get(variable) else default


def _title(run: RunInfo) -> str:
    """Condition and seed, within what W&B takes."""
    seed = f"_seed{run.seed}"
    return run.condition[: LONGEST_NAME - len(seed)] + seed
