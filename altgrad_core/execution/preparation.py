"""Loading the data of a suite once, in a child process, before anything trains."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence

from altgrad_core.errors import UserError
from altgrad_core.execution.launch import cores, worker_command, worker_environment
from altgrad_core.execution.options import Observer, RunOptions
from altgrad_core.planning.spec import RunSpec
from altgrad_core.results.run_directory import RunDirectory


def prepare_data(
    specs: Sequence[RunSpec],
    directories: dict[str, RunDirectory],
    options: RunOptions,
    observer: Observer,
) -> str:
    """Load the data of every distinct task once, in a child process, and return the resolved device."""
    device = options.device
    seen: set[str] = set()
    for spec in specs:
        key = spec.task.model_dump_json()
        if key in seen:
            continue
        seen.add(key)
        observer.message(f"preparing data: {spec.task.name}")
        threads = options.threads or cores()
        command = worker_command(directories[spec.id], device, threads, options.cache, "--prepare")
        device = _run_prepare(command, worker_environment(threads), observer)
    return device


def _run_prepare(command: Sequence[str], environment: dict[str, str], observer: Observer) -> str:
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        last = ""
        for line in child.stdout:
            if last:
                observer.message(f"  {last}")
            last = line.rstrip()
        errors = child.stderr.read()
    if child.returncode == 0:
        answer = json.loads(last)
        observer.message(f"device: {answer['device']} ({answer['name']})")
        return str(answer["device"])
    if child.returncode == 2:
        raise UserError(errors.strip().rpartition("error: ")[2])
    tail = "\n".join(errors.strip().splitlines()[-15:])
    raise UserError(f"preparing the data failed with exit code {child.returncode}:\n{tail}")
