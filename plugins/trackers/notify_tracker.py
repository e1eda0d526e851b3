"""The tracker ``notify`` as a run sees it: it takes nothing, since notices are of suites."""

from __future__ import annotations

from altgrad_core.interfaces.tracker import Tracker
from altgrad_plugins.trackers.settings import NotifySettings


class NotifyTracker(Tracker):
    """Leaves everything to :func:`altgrad_plugins.trackers.notify.notify`, where the suite was started."""

    def __init__(self, settings: NotifySettings) -> None:
        self.settings = settings
