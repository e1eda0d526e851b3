"""Jobs on another machine: run there by its own local executor, in the folder that the suite was started in.

The time limits, the process group, the lifeline and the forking are thus those of ``local``, and a run is the
same child process under every executor.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from altgrad_core.interfaces.executor import Exit, Job
from altgrad_core.interfaces.plugin import NoSettings
from altgrad_plugins.executors.local import LocalExecutor

_here = LocalExecutor(NoSettings())
"""Kept from one job of this process to the next, with what was imported for them."""


def portable(job: Job) -> Job:
    """The job with paths that mean the same in any folder."""
    directory, signs = job.directory.resolve(), tuple(path.resolve() for path in job.signs)
    return replace(job, directory=directory, signs=signs)


def run_here(
    job: Job,
    *,
    folder: Path,
    python: str,
    timeout: float | None,
    tick: Callable[[], None] = lambda: None,
) -> Exit:
    """Run one job on this machine. What ends this early, ends the job's process as well.

    folder, python:
        where the suite was started, and the interpreter it runs in, which is this one's here. Of a job that
        fetches, the folder may be missing here.
    """
    if job.command[0] == python:
        job = replace(job, command=(sys.executable, *job.command[1:]))
    if job.fetches:
        job.directory.mkdir(parents=True, exist_ok=True)
        folder = folder if folder.is_dir() else job.directory
    for path in (folder, job.directory):
        if not path.is_dir():
            where = f"{path} is not there on {socket.gethostname()}"
            return Exit(
                127,
                failed=f"{where}: the folders of a suite lie on storage that all machines share",
            )
    os.chdir(folder)
    ends: list[Exit] = []
    try:
        _here.execute(
            [job],
            workers=1,
            timeout=timeout,
            started=lambda _: None,
            finished=lambda _, end: ends.append(end),
            tick=tick,
        )
    except BaseException:
        _here.close()  # whatever was cut off in between: without its lifeline no child goes on
        raise
    return ends[0]


def ask_to_save() -> None:
    """Ask the job that runs here for a checkpoint as soon as it can write one."""
    _here.ask_to_save()
