"""Runs jobs on the machines of a Ray cluster.

Ray places the runs and tells of nodes that are lost; a run is the same child process as under ``local``, which
:mod:`altgrad_plugins.executors.node` starts and watches on its node. A run whose node is lost goes on elsewhere,
from its checkpoint. The tasks belong to this process: when it is gone, Ray ends them, and with them the runs.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from altgrad_core.errors import UserError
from altgrad_core.interfaces.executor import Executor, Exit, Job
from altgrad_plugins.executors.node import portable, run_here
from altgrad_plugins.executors.settings import RaySettings

_POLL_SECONDS = 0.1
_LOOK_SECONDS = 5.0
"""How often the nodes are looked at."""
_GRACE_SECONDS = 20.0
"""How long the runs that were cancelled are waited for; a node gives them five seconds to end by themselves."""
_STORE_BYTES = 100 * 2**20
"""Ray's object store on this machine: nothing but ends of runs passes through it."""

Node = Mapping[str, float]
"""What a node has in all, by Ray's names."""


def _on_node(job: Job, folder: Path, python: str, timeout: float | None) -> Iterator[Exit | None]:
    """What a node does for a job: say that it begins, and how it ended."""
    yield None
    yield run_here(job, folder=folder, python=python, timeout=timeout)


@dataclass
class _Task:
    job: Job
    results: Any
    """The generator of references to what :func:`_on_node` says."""
    begun: bool = False
    moves: int = 0


class RayExecutor(Executor):
    """``workers`` runs at a time, as far as the cluster has room, each with its share of a node."""

    def __init__(self, settings: RaySettings) -> None:
        self.settings = settings
        self._ours = False

    def workers(self, device: str, runs: int) -> int:
        """All of them: Ray has them wait."""
        return runs

    def execute(
        self,
        jobs: Sequence[Job],
        *,
        workers: int,
        timeout: float | None,
        started: Callable[[Job], None],
        finished: Callable[[Job, Exit], None],
        tick: Callable[[], None],
    ) -> None:
        """Run every job; see :class:`~altgrad_core.interfaces.executor.Executor`.

        Raises ``UserError`` where there is no cluster, or none of its nodes has what a run asks for.
        """
        self._connect()
        request = self._request()
        refuse_unsatisfiable(request, _nodes())
        remote = self._remote(request)
        place = {"folder": Path.cwd(), "python": sys.executable, "timeout": timeout}

        def submit(job: Job) -> Any:
            return remote.remote(portable(job), **place)

        suite = _Suite(submit, self.settings.moves, started, finished)
        room = _Room(request, self.settings.patience * 60)
        waiting = deque(jobs)
        try:
            while waiting or suite.tasks:
                room.look()
                while waiting and len(suite.tasks) < min(workers, room.runs):
                    suite.start(waiting.popleft())
                suite.wait()
                if room.given_up:
                    suite.give_up(waiting, room.given_up)
                tick()
        finally:
            suite.cancel()

    def close(self) -> None:
        """Leave the cluster, or end the one that was started here."""
        if self._ours:
            ray.shutdown()
            self._ours = False

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        self._knock()
        local = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                self.settings.address,
                log_to_driver=False,
                logging_level="ERROR",
                configure_logging=False,
                **(local if self.settings.address == "local" else {}),
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            if main:  # Ray's own handler would end this process before its runs are put in order
                signal.signal(signal.SIGTERM, before)
        self._ours = True

    def _knock(self) -> None:
        """See whether anybody is there: Ray itself would take minutes to say that nobody is."""
        address = self.settings.address
        if address == "auto":
            address = os.environ.get("RAY_ADDRESS", "")
        host, colon, port = address.rpartition(":")
        if colon and port.isdigit():
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
            except OSError as error:
                raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> UserError:
        return UserError(
            f"no Ray cluster can be reached at {self.settings.address!r}: {str(error).rstrip('.')}. Start one with "
            "`ray start --head`, name one with --executor-set address=HOST:PORT, or let this machine be one with "
            "--executor-set address=local."
        )

    def _request(self) -> dict[str, float]:
        """What each run asks for, by Ray's names."""
        settings, gpus = self.settings, self.settings.gpus
        if gpus is None:
            gpus = float(any(node.get("GPU", 0) >= 1 for node in _nodes()))
        asked = {"CPU": settings.cpus, "GPU": gpus, "memory": settings.memory_gb * 1e9}
        return {name: value for name, value in {**asked, **settings.resources}.items() if value}

    def _remote(self, request: Mapping[str, float]) -> Any:
        known = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
        own = {option: request.get(name, 0) for name, option in known.items()}
        return ray.remote(
            **{name: value for name, value in own.items() if value or name == "num_cpus"},
            resources={name: value for name, value in request.items() if name not in known},
            max_retries=0,
            num_returns="streaming",
        )(_on_node)


class _Suite:
    """The tasks under way."""

    def __init__(
        self,
        submit: Callable[[Job], Any],
        moves: int,
        started: Callable[[Job], None],
        finished: Callable[[Job, Exit], None],
    ) -> None:
        self._submit, self._moves = submit, moves
        self._started, self._finished = started, finished
        self.tasks: dict[int, _Task] = {}

    def start(self, job: Job) -> None:
        """Hand a job to Ray, which has it wait for its share of a node."""
        self._hold(_Task(job, self._submit(job)))

    def _hold(self, task: _Task) -> None:
        self.tasks[id(task.results)] = task

    def wait(self) -> None:
        """Wait a moment for news, and take up what there is."""
        if not self.tasks:
            time.sleep(_POLL_SECONDS)
            return
        waited = [task.results for task in self.tasks.values()]
        ready, _ = ray.wait(waited, num_returns=1, timeout=_POLL_SECONDS)
        for results in ready:
            self._take(self.tasks[id(results)])

    def _take(self, task: _Task) -> None:
        """Take up what a task says next."""
        try:
            said = ray.get(next(task.results))
        except RayTaskError as error:  # our own part of it fails there
            self._end(task, Exit(127, failed=f"no process could be started for it: {error.cause}"))
        except OutOfMemoryError:
            self._end(task, Exit(-signal.SIGKILL))
        except (RayError, StopIteration):
            self._lost(task)
        else:
            self._begin(task) if said is None else self._end(task, said)

    def _lost(self, task: _Task) -> None:
        """A node, or Ray's process there, is gone, and what it had started with it: go on elsewhere."""
        if task.moves >= self._moves:
            self._end(task, Exit(-signal.SIGKILL))
            return
        del self.tasks[id(task.results)]
        task.moves += 1
        task.results = self._submit(task.job)
        self._hold(task)

    def _begin(self, task: _Task) -> None:
        if not task.begun:
            task.begun = True
            self._started(task.job)

    def _end(self, task: _Task, end: Exit) -> None:
        self._begin(task)
        del self.tasks[id(task.results)]
        self._finished(task.job, end)

    def give_up(self, waiting: deque[Job], why: str) -> None:
        """Say of every job that is left that no node could run it."""
        for job in waiting:
            self._started(job)
            self._finished(job, Exit(127, failed=why))
        waiting.clear()
        for task in list(self.tasks.values()):
            ray.cancel(task.results)
            self._end(task, Exit(127, failed=why))

    def cancel(self) -> None:
        """End what is under way, and wait until it has ended."""
        for task in self.tasks.values():
            ray.cancel(task.results)
        ends = [task.results.completed() for task in self.tasks.values()]
        left = ray.wait(ends, num_returns=len(ends), timeout=_GRACE_SECONDS)[1] if ends else []
        if left:
            for task in self.tasks.values():
                ray.cancel(task.results, force=True)  # the lifeline ends the run
            ray.wait(left, num_returns=len(left), timeout=_GRACE_SECONDS)
        self.tasks.clear()


class _Room:
    """How many runs the cluster can hold at once, looked at again and again: nodes come and go."""

    def __init__(self, request: Mapping[str, float], patience: float) -> None:
        self._request, self._patience = request, patience
        self._seen = time.monotonic()
        self._looked = -math.inf
        self.runs = 0
        self.given_up = ""
        """Why nothing can run any more; empty as long as something may."""

    def look(self) -> None:
        """Look at the nodes, unless that was just done."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        self.runs = sum(_holds(node, self._request) for node in _nodes())
        if self.runs:
            self._seen = now
        elif now - self._seen > self._patience:
            self.given_up = (
                f"for {self._patience / 60:g} minutes no node of the Ray cluster had {_told(self._request)}, "
                "what a run asks for"
            )


def _nodes() -> list[Node]:
    """The living nodes."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _holds(node: Node, request: Mapping[str, float]) -> int:
    """How many runs a node can hold at once, were it empty."""
    if not request:  # no bound at all would flood it
        return int(node.get("CPU", 0))
    return int(min(node.get(name, 0.0) / value + 1e-9 for name, value in request.items()))


def refuse_unsatisfiable(request: Mapping[str, float], nodes: Sequence[Node]) -> None:
    """Raise ``UserError`` unless a node has what a run asks for: Ray would wait for ever for one that has."""
    if any(_holds(node, request) for node in nodes):
        return
    most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in request}
    lacking = {name: most[name] for name in request if most[name] < request[name]}
    short = f"the most that a node has is {_told(lacking or most)}" + (
        "" if lacking else ", not on one"
    )
    raise UserError(
        f"each run asks for {_told(request)}, and no node of the Ray cluster has that: {short}. Ask for less with "
        "--executor-set (cpus, gpus, memory_gb, resources), or add such a node first."
    )


def _told(resources: Mapping[str, float]) -> str:
    """Resources in words, by the names of settings."""
    names = {"CPU": "cpus", "GPU": "gpus", "memory": "memory_gb"}
    scaled = {name: value / 1e9 if name == "memory" else value for name, value in resources.items()}
    return ", ".join(f"{value:.4g} {names.get(name, name)}" for name, value in scaled.items())
