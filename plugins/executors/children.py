"""The processes of jobs, seen from the executor: started afresh, or forked from a template."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Protocol

from altgrad_core.interfaces.executor import LIFELINE, Job

_ROOM = 4096
"""Bytes of a command that are shown in the list of processes."""
_PATIENCE_SECONDS = 2.0
_TEMPLATE = "altgrad_plugins.executors.template"
_START = (sys.executable, "-P", "-m")


class Child(Protocol):
    """A job's process, which leads a process group."""

    def poll(self) -> int | None:
        """Its exit code, negative where a signal killed it; None while it runs."""

    def signal(self, number: int) -> bool:
        """Send a signal to the group (0 sends none); whether it has a member left."""

    def reap(self) -> None:
        """Wait for the end of a process that was killed."""

    def wait_on(self) -> list[socket.socket]:
        """What can be read when there may be news."""


class Fresh:
    """A process that runs the job's command."""

    def __init__(self, job: Job, lifeline: int) -> None:
        with (job.directory / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(job, lifeline),
                pass_fds=(lifeline,),
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """See :class:`Child`."""
        return self._process.poll()

    def signal(self, number: int) -> bool:
        """See :class:`Child`."""
        return signal_group(self._process.pid, number)

    def reap(self) -> None:
        """See :class:`Child`."""
        self._process.wait()

    def wait_on(self) -> list[socket.socket]:
        """Nothing: it is asked again after a while."""
        return []


class Template:
    """A process that has imported a job's modules, and the ends of those that were forked from it."""

    def __init__(self, job: Job, lifeline: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen(
                (*_START, _TEMPLATE, str(theirs.fileno()), *job.preload, " " * _ROOM),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=environment(job, lifeline),
                pass_fds=(lifeline, theirs.fileno()),
                start_new_session=True,
            )
        ours.setblocking(False)
        self.control = ours
        self.gone = False
        self.used = False
        """Whether a child has come of it."""
        self._asked = 0
        self._ends: dict[int, int] = {}

    def ask(self, job: Job) -> tuple[int, socket.socket | None]:
        """Ask for a child: its number, and its link, which is None where the template takes no more."""
        self._asked += 1
        link, theirs = socket.socketpair()
        module, *arguments = job.command[len(_START) :]
        body = json.dumps([self._asked, module, arguments]).encode()
        with theirs, (job.directory / "log.txt").open("ab") as log:
            try:
                socket.send_fds(self.control, [body], [log.fileno(), theirs.fileno()])
            except OSError as error:
                self.gone = self.gone or isinstance(error, ConnectionError)
                link.close()
                return self._asked, None
        link.setblocking(False)
        return self._asked, link

    def end_of(self, number: int) -> int | None:
        """The exit code of a child, once it has ended."""
        with contextlib.suppress(BlockingIOError):
            while not self.gone:
                try:
                    message = self.control.recv(1 << 10)
                except ConnectionError:
                    message = b""
                if message:
                    child, status = json.loads(message)
                    self._ends[child] = os.waitstatus_to_exitcode(status)
                self.gone = not message
        return self._ends.get(number)

    def kill(self) -> None:
        """End it, and with it what is known of its children."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it when it has no children left."""
        self.control.close()
        self.kill()


class Forked:
    """A child of a template; in place of one that does not come, a process that is started afresh."""

    def __init__(self, job: Job, lifeline: int, template: Template) -> None:
        self._job, self._lifeline, self._template = job, lifeline, template
        self._pid: int | None = None
        self._code: int | None = None
        self._instead: Fresh | None = None
        self._lost = float("inf")
        self._number, self._link = template.ask(job)
        if self._link is None:
            self._instead = Fresh(job, lifeline)

    def poll(self) -> int | None:
        """See :class:`Child`."""
        if self._link is not None:
            self._meet(self._link)
        if self._instead is not None:
            return self._instead.poll()
        if self._code is None and self._pid is not None:
            self._code = self._template.end_of(self._number)
            if self._code is None and self._template.gone:
                self._code = self._end_lost(self._pid)
        return self._code

    def _meet(self, link: socket.socket) -> None:
        """Take the child's id, and let it go on."""
        try:
            said = link.recv(1 << 5)
        except BlockingIOError:
            return
        except ConnectionError:
            said = b""
        if said:
            self._pid = int(said)
            self._template.used = True
            with contextlib.suppress(OSError):  # it was killed meanwhile, and is reported
                link.send(b"!")
        else:
            self._instead = Fresh(self._job, self._lifeline)
        link.close()
        self._link = None

    def _end_lost(self, pid: int) -> int | None:
        """Kill a child whose end nobody reports any more; its code when it is gone, or should be."""
        self._lost = min(self._lost, time.monotonic() + _PATIENCE_SECONDS)
        there = signal_group(pid, signal.SIGKILL)
        return None if there and time.monotonic() < self._lost else -signal.SIGKILL

    def signal(self, number: int) -> bool:
        """See :class:`Child`. A child that has not begun never does."""
        if self._instead is not None:
            return self._instead.signal(number)
        if self._pid is not None:
            return signal_group(self._pid, number)
        if number and self._link is not None:
            self._link.close()
            self._link, self._code = None, -number
        return False

    def reap(self) -> None:
        """See :class:`Child`. A template that has nothing to say is not waited for."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self.poll() is None:
            if time.monotonic() > deadline:
                self._template.kill()
            time.sleep(0.01)

    def wait_on(self) -> list[socket.socket]:
        """See :class:`Child`."""
        if self._link is not None:
            return [self._link]
        return [] if self._pid is None else [self._template.control]


class Kept:
    """What outlives the jobs: the writing end of their lifeline, and the templates."""

    def __init__(self) -> None:
        self._pipe: tuple[int, int] | None = None
        self._templates: dict[object, Template] = {}

    def start(self, job: Job, *, fork: bool) -> Child:
        """A process for the job, of a template where that is possible and wanted.

        A template that has ended without a child would do so again; one that was lost is replaced.
        """
        if self._pipe is None:
            self._pipe = os.pipe()
        lifeline = self._pipe[0]
        if not (fork and can_fork(job)):
            return Fresh(job, lifeline)
        settings: Mapping[str, str] = os.environ | dict(job.environment)
        key = job.preload, frozenset(settings.items())
        template = self._templates.get(key)
        if template is None or (template.gone and template.used):
            if template is not None:
                template.close()
            template = self._templates[key] = Template(job, lifeline)
        return Fresh(job, lifeline) if template.gone else Forked(job, lifeline, template)

    def ask_to_save(self) -> None:
        """Write a byte into the lifeline, which one of the jobs takes up."""
        if self._pipe is not None:
            os.write(self._pipe[1], b"s")

    def close(self) -> None:
        """End the templates and let go of the lifeline. Can be used again after."""
        while self._templates:
            self._templates.popitem()[1].close()
        for end in self._pipe or ():
            os.close(end)
        self._pipe = None


def can_fork(job: Job) -> bool:
    """Whether a copy of a process can stand for the job's command."""
    here = sys.platform == "linux" and hasattr(os, "pidfd_open")
    return here and job.command[: len(_START)] == _START and bool(job.preload)


def environment(job: Job, lifeline: int) -> dict[str, str]:
    """The whole environment of a job's process."""
    return os.environ | dict(job.environment) | {LIFELINE: str(lifeline)}


def signal_group(leader: int, number: int) -> bool:
    """Send a signal to a process group (0 sends none); whether it has a member left."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return False
    return True
