"""Command lines, each in a process of its own that is forked from one which has imported what they need.

What a suite and its report import takes longer than the tiny suites of the tests. :func:`warm_cli` starts the
server, which is this file as a script. Workers are forked from a template as ever; the template is a copy of the
command's process in place of an interpreter that would import the same once more.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_CHILDREN = "altgrad_plugins.executors.children"
LIGHT = ("altgrad_core.cli", "altgrad_core.planning.planner", "altgrad_core.registry.present")
FULL = (
    *("altgrad_core.cli", "altgrad_core.execution.runner", "altgrad_core.execution.worker"),
    *("altgrad_core.analysis.find", "altgrad_core.analysis.formats"),
    *("altgrad_core.report.build", "altgrad_core.report.terminal", "altgrad_core.report.charts"),
    *("altgrad_core.execution.ready", "altgrad_plugins.tasks.classification", "vl_convert"),
    _CHILDREN,
    *(
        f"transformers.models.{name}.modeling_{name}"
        for name in ("auto", "bert", "distilbert", "roberta")
    ),
)
_TEMPLATE = "altgrad_plugins.executors.template"


@dataclass
class Running:
    """A command line that was started."""

    arguments: list[str]
    pid: int
    _link: socket.socket
    _said: list[Path]
    _code: int | None = None

    def poll(self) -> int | None:
        """The exit code; negative where a signal ended it, None while it runs."""
        return self._end(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once there is one. Raises ``TimeoutError``."""
        code = self._end(timeout)
        if code is None:
            raise TimeoutError(f"{self.arguments} goes on after {timeout} s")
        return code

    def _end(self, timeout: float | None) -> int | None:
        if self._code is None and select.select([self._link], [], [], timeout)[0]:
            self._code = int(self._link.recv(100))
            self._link.close()
        return self._code

    def send_signal(self, number: int) -> None:
        """Send a signal to it, if it is still there."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, number)

    def done(self) -> subprocess.CompletedProcess[str]:
        """What it said, once it has ended."""
        code = self.wait()
        out, err = (path.read_text() for path in self._said)
        return subprocess.CompletedProcess(self.arguments, code, out, err)


@dataclass
class Cli:
    """Runs command lines."""

    control: socket.socket
    scratch: Path
    _count: int = field(default=0, init=False)

    def run(
        self,
        *arguments: str | Path,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """``altgrad-bench ARGUMENTS`` in that folder, with these variables added to those of now.

        What stands in ``PYTHONPATH`` is found, plugins as well. ``-c PROGRAM`` runs a program instead.
        """
        return self.start(*arguments, folder=folder, environment=environment).done()

    def start(
        self,
        *arguments: str | Path,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Running:
        """As :meth:`run`, which waits for its end."""
        self._count += 1
        said = [self.scratch / f"{self._count}.{stream}" for stream in ("stdout", "stderr")]
        texts, variables = list(map(str, arguments)), {**os.environ, **(environment or {})}
        request = [texts, str(folder or Path.cwd()), variables, list(map(str, said))]
        (self.scratch / "request").write_text(json.dumps(request))
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            name = str(self.scratch / "request").encode()
            socket.send_fds(self.control, [name], [theirs.fileno()])
        return Running(texts, int(link.recv(100)), link, said)


@contextmanager
def warm_cli(*, preloaded: Sequence[str] = FULL) -> Iterator[Cli]:
    """A server that has imported ``preloaded``, while the context lasts."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # and so no thread that a copy would lack
    room = " " * 4096  # for the names of the workers that come of it
    command = [sys.executable, "-P", __file__, str(its.fileno()), *preloaded, room]
    server = subprocess.Popen(command, env=environment, pass_fds=(its.fileno(),))
    its.close()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            yield Cli(mine, Path(scratch))
    finally:
        mine.close()
        server.wait(60)


def _serve(control: socket.socket, preloaded: Sequence[str]) -> None:
    for name in preloaded:
        importlib.import_module(name)
    tasks = Path("/proc/self/task").iterdir()
    names = {(task / "comm").read_text().strip() for task in tasks if task.name != str(os.getpid())}
    # pyarrow's allocator has a thread, and does without it in a copy
    assert names <= {"jemalloc_bg_thd"}, f"a process with threads must not be copied: {names}"
    gc.collect()
    gc.freeze()  # or every copy would look through all of it, and so make it its own
    watchers = 0
    while True:
        message, given, _, _ = socket.recv_fds(control, 1000, 1)
        while watchers and os.waitpid(-1, 0 if not message else os.WNOHANG)[0]:
            watchers -= 1
        if not message:
            return
        request, link = (
            json.loads(Path(message.decode()).read_text()),
            socket.socket(fileno=given[0]),
        )
        watchers += 1
        if not os.fork():
            control.close()
            os._exit(_watched(link, *request))
        link.close()


def _watched(link: socket.socket, *request: Any) -> int:
    """Do what was asked for in a child, and say its process id and its exit code."""
    if not (child := os.fork()):
        link.close()
        os._exit(_command(*request))
    link.send(str(child).encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):  # whoever asked is gone
        link.send(str(code).encode())
    return 0


def _command(
    arguments: list[str], folder: str, environment: Mapping[str, str], said: list[str]
) -> int:
    """The command line, up to its exit code."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # also where tests run in the background
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(folder)
    _be_in(environment)
    for descriptor, path in enumerate([os.devnull, *said]):
        how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if descriptor else os.O_RDONLY
        opened = os.open(path, how, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = ["altgrad-bench", *arguments]
    if children := sys.modules.get(_CHILDREN):
        names = {"DEVNULL": subprocess.DEVNULL, "STDOUT": subprocess.STDOUT}
        children.subprocess = SimpleNamespace(Popen=_popen, **names)  # type: ignore[attr-defined]
    try:
        if arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(arguments[1], {"__name__": "__main__"})
        else:
            importlib.import_module("altgrad_core.cli").main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _be_in(environment: Mapping[str, str]) -> None:
    """Take on these variables, and what they add to the import path with its plugins."""
    os.environ.clear()
    os.environ.update(environment)
    paths = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    added = [path for path in paths if path not in sys.path]
    if added:
        sys.path[:0] = added
        importlib.invalidate_caches()
        if catalog := sys.modules.get("altgrad_core.registry.catalog"):
            catalog.catalog.cache_clear()


def _popen(command: Sequence[str], **options: Any) -> Any:
    """As ``subprocess.Popen``, with a copy of this process where a template is asked for."""
    at = command.index(_TEMPLATE) if _TEMPLATE in command else None
    return subprocess.Popen(command, **options) if at is None else _Copy(command[at:], **options)


class _Copy:
    """A copy of this process that becomes a template, as far as ``children.Template`` asks for it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: Any,
        stderr: Any,
        env: Mapping[str, str],
        pass_fds: Sequence[int],
        start_new_session: bool,
    ) -> None:
        assert (stdin, stdout, start_new_session) == (subprocess.DEVNULL, stderr, True)
        self.pid = os.fork()
        if self.pid:
            return
        try:
            os.setsid()
            # or what ends first would remove the folders that the command made for a time
            weakref.finalize._registry.clear()  # type: ignore[attr-defined]
            nothing = os.open(os.devnull, os.O_RDONLY)
            for descriptor, source in enumerate((nothing, stdout.fileno(), stdout.fileno())):
                os.dup2(source, descriptor)
            kept = sorted({0, 1, 2, *pass_fds})
            for low, high in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
                os.closerange(low + 1, high)
            for number in signal.valid_signals():
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _be_in(env)
            sys.argv = list(command)
            runpy.run_module(_TEMPLATE, run_name="__main__", alter_sys=True)
        except KeyboardInterrupt:  # an interpreter ends itself by the signal that it was sent
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def kill(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for its end."""
        os.waitpid(self.pid, 0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:-1])
