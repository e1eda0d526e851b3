"""Command lines, each in a process of its own that is forked from one which has imported what they need.

What a suite and its report import takes longer than the tiny suites of the tests. :func:`warm_cli` starts the
server, which is this file as a script.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LIGHT = ("altgrad_core.cli", "altgrad_core.planning.plan", "altgrad_core.registry.present")
FULL = (
    *("altgrad_core.cli", "altgrad_core.execution.runner", "altgrad_core.execution.worker"),
    *("altgrad_core.analysis.find", "altgrad_core.analysis.formats"),
    *(
        "altgrad_core.report.build",
        "altgrad_core.report.terminal",
        "altgrad_core.execution.ready",
        "vl_convert",
    ),
)


@dataclass
class Cli:
    """Runs command lines, one at a time."""

    control: socket.socket
    scratch: Path

    def run(
        self,
        *arguments: str | Path,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """``altgrad-bench ARGUMENTS`` in that folder, with these variables added to those of now."""
        said = [self.scratch / "stdout", self.scratch / "stderr"]
        texts, variables = list(map(str, arguments)), {**os.environ, **(environment or {})}
        request = [texts, str(folder or Path.cwd()), variables, list(map(str, said))]
        (self.scratch / "request").write_text(json.dumps(request))
        self.control.send(str(self.scratch / "request").encode())
        code = int(self.control.recv(100))
        out, err = (path.read_text() for path in said)
        return subprocess.CompletedProcess(texts, code, out, err)


@contextmanager
def warm_cli(*path: Path, preloaded: Sequence[str] = FULL) -> Iterator[Cli]:
    """A server that has imported ``preloaded``, with ``path`` on its import path, while the context lasts."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    paths = [*map(str, path), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",  # and so no thread that a copy would lack
    }
    command = [sys.executable, "-P", __file__, str(its.fileno()), *preloaded]
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
    while message := control.recv(1000):
        if not (child := os.fork()):
            control.close()
            os._exit(_command(*json.loads(Path(message.decode()).read_text())))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        control.send(str(code).encode())


def _command(
    arguments: list[str], folder: str, environment: Mapping[str, str], said: list[str]
) -> int:
    """The command line, up to its exit code."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
    sys.argv = ["altgrad-bench", *arguments]
    try:
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


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
