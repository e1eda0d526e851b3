"""The process from which jobs are forked: it has imported what they need, and does nothing itself.

``python -P -m altgrad_plugins.executors.template SOCKET MODULE...`` imports the modules and then answers
requests, each a JSON list ``[number, module, arguments]`` with two file descriptors: the job's log, and a link to
whoever asked. For each it forks a child, which leads a session of its own, says its process id on the link,
waits there for leave to go on (so that none runs of which nobody knows), and runs the module as
``python -P -m MODULE`` would. Of every child that has ended, ``[number, wait status]`` is said on the socket.
When the socket closes, the process ends.

It ends before the first fork where a copy of it could not be relied on: with more than one thread, whose
locks nobody would release in the copy, or with an accelerator already open. Its jobs are then started afresh.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

LARGEST = 1 << 20
"""Bytes of a request."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri")


def main(arguments: Sequence[str]) -> None:
    """Serve until the socket closes; return in each child, when its job is done."""
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    _be_called([sys.executable, "-P", "-m", "altgrad_plugins.executors.template"])
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:  # children are ended with time to put things in order, and reported
        signal.signal(number, signal.SIG_IGN)
    for name in arguments[1:]:
        with contextlib.suppress(Exception):  # the job meets it as well, and says so in its log
            importlib.import_module(name)
        if not _can_be_copied():
            os._exit(0)
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # children need not look at what is here, and share its pages
    module, options, link = _serve(control)
    for number, handler in before.items():
        signal.signal(number, handler)
    _become(module, options, link)


def _serve(control: socket.socket) -> tuple[str, list[str], socket.socket]:
    """Fork a child for each request, and return in it what it is to run, with its link."""
    children: dict[int, tuple[int, int]] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor != control.fileno():
                poll.unregister(descriptor)
                _report(control, *children.pop(descriptor))
                os.close(descriptor)
                continue
            message, given, _, _ = socket.recv_fds(control, LARGEST, 2, socket.MSG_CMSG_CLOEXEC)
            if not message or not _can_be_copied():
                os._exit(0)
            log, link = given[0], socket.socket(fileno=given[1])
            number, module, arguments = json.loads(message)
            if not (child := os.fork()):
                for mine in (control.detach(), *children):
                    os.close(mine)
                _print_to(log)
                return module, arguments, link
            os.close(log)
            link.close()
            watched = os.pidfd_open(child)
            children[watched] = number, child
            poll.register(watched, select.POLLIN)


def _report(control: socket.socket, number: int, child: int) -> None:
    """Say how a child ended."""
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):  # nobody is there to know it: the socket is closed
        control.send(json.dumps([number, status]).encode())


def _can_be_copied() -> bool:
    if not _one_thread():
        return False
    opened = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists the folder
            opened.add(str(descriptor.readlink()))
    return not any(path.startswith(_DEVICES) for path in opened)


def _one_thread() -> bool:
    return len(list(Path("/proc/self/task").iterdir())) == 1


def _print_to(log: int) -> None:
    """Let what is printed go to ``log``, behind what was printed by the imports."""
    said = os.pread(1, os.fstat(1).st_size, 0)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    os.write(1, said)


def _become(module: str, arguments: list[str], link: socket.socket) -> None:
    """In a child: be the process that the command would have started, up to its module."""
    os.setsid()
    sys.argv[1:] = arguments
    _be_called([sys.executable, "-P", "-m", module, *arguments])
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # its global generator is another in every process
    link.send(str(os.getpid()).encode())
    if not link.recv(1):
        os._exit(0)
    link.close()
    sys.modules.pop(module, None)  # it runs as __main__, and is imported under its name by none
    _end(_run(module))


def _run(module: str) -> int:
    """Run a module as the program; its exit code. What else it ends with goes on, to end the process."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        raise
    return 0


def _end(code: int) -> NoReturn:
    """End as an interpreter does, less taking thousands of modules apart, which takes half a second."""
    threading._shutdown()  # type: ignore[attr-defined]  # as the standard library's own forked processes do
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # the program has closed it
            stream.flush()
    os._exit(code & 0xFF)


def _be_called(command: list[str]) -> None:
    """Show ``command`` in the list of processes, as far as there is room for it."""
    with contextlib.suppress(OSError, ValueError):  # only what ``ps`` shows
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        title = b"".join(os.fsencode(part) + b"\0" for part in command)[: end - start - 1]
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(title.ljust(end - start, b"\0"))


if __name__ == "__main__":
    main(sys.argv[1:-1])  # the last is room for the names of its children
