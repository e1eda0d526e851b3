"""Bringing and sending a run in the process that makes it, beside its work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from altgrad_core.errors import UserError
from altgrad_core.locks.lock import RunHeld
from altgrad_core.results.remote.mirror import RunMirror, report_name, write_bytes
from altgrad_core.results.remote.store import StoreFault, open_store
from altgrad_core.results.run_directory import RunDirectory

LOOK_SECONDS = 0.5
"""How often a new checkpoint is looked for."""
SEND_SECONDS = 30.0
"""How often the metrics and the status of a run are sent between checkpoints."""
PATIENCE_SECONDS = 60.0
"""How long a store that gives no answer is asked again, before a run begins without it and after it has ended."""
_LONGEST_WAIT = 300.0


class Courier:
    """Keeps the counterpart of a run up to date while this process makes the run; a context.

    Nothing that the store does harms the run. Without an answer it begins from what is here, and what cannot be sent
    at its end stays in its directory, for the process that runs the suite to send.

    patience:
        seconds for which a store that gives no answer is asked again, before the run begins and after it has ended.
    """

    def __init__(
        self,
        url: str,
        directory: RunDirectory,
        say: Callable[[str], None],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._patience, self.answered = patience, True
        self._store = open_store(url)
        self._mirror = RunMirror(self._store, directory, say)
        self._say = say
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
        self._silent = False

    @property
    def hangs(self) -> bool:
        """Whether a call to the store has not come back."""
        return self._store.hangs or self._thread.is_alive()

    def __enter__(self) -> Courier:
        self._patiently(self._begin)
        self._thread.start()
        return self

    def _begin(self) -> None:
        self._mirror.take()
        self._mirror.fetch()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_SECONDS)
        self.answered = not self._thread.is_alive() and not self._patiently(self._last)
        if not self.answered:
            self._say("what the store lacks of this run is kept here")
        self._mirror.lock.give_back()

    def _last(self) -> None:
        with suppress(RunHeld):  # another has taken this process for dead, and sends its own
            self._mirror.take()
            self._mirror.deliver()

    def _patiently(self, work: Callable[[], None]) -> bool:
        """Try for a while; whether it failed."""
        deadline, wait = time.monotonic() + self._patience, 1.0
        while True:
            try:
                work()
            except (StoreFault, OSError) as error:
                self._tell(error)
                if time.monotonic() + wait > deadline:
                    return True
            else:
                return False
            time.sleep(wait)
            wait *= 2

    def _tell(self, error: Exception) -> None:
        if not self._silent:
            self._say(f"the store is tried again: {error}")
        self._silent = True

    def _work(self) -> None:
        """Send at every checkpoint, and what else is new every half minute; slower while that fails."""
        mirror, seen, due, wait = self._mirror, None, 0.0, LOOK_SECONDS
        while not self._stop.wait(wait):
            mark, now = mirror.checkpoint_mark(), time.monotonic()
            if mark == seen and now < due:
                continue
            try:
                if not mirror.lock.held:
                    mirror.take_again()
                mirror.send()
            except (UserError, OSError) as error:  # another's, no answer, no room for the bundle
                self._tell(error)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                self._silent, wait = False, LOOK_SECONDS
                seen, due = mark, now + SEND_SECONDS


@contextmanager
def reported(url: str, directory: RunDirectory, report: Path) -> Iterator[None]:
    """What the preparation of data needs, and says, where the machine has no folder in common with the launcher's."""
    key = f"{directory.path.parent.name}/{directory.path.name}/spec.yaml"
    if not url or directory.spec.exists():
        yield
        return
    store = open_store(url)
    if spec := store.read(key):
        directory.path.mkdir(parents=True, exist_ok=True)
        write_bytes(directory.spec, spec)
    yield
    store.write(f"{directory.path.parent.name}/{report_name(report)}", report.read_bytes())
