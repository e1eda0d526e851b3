"""The worker: one run, one process, one run directory. ``python -m altgrad_core.execution.worker DIR``.

Whatever happens ends as a status in ``status.json``; what a process cannot write itself (it was killed) is
written by the parent from its exit code.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Event as Flag

import numpy as np
import torch

from altgrad_core._files import atomic_file, write_json
from altgrad_core._streams import safe_streams
from altgrad_core._text import plain
from altgrad_core.errors import UserError
from altgrad_core.execution.assemble import (
    assemble,
    build_format,
    build_trackers,
    check_execution,
    check_inputs,
    prepare_task,
    resolve_device,
)
from altgrad_core.execution.environment import describe_environment
from altgrad_core.execution.lifeline import watch_lifeline
from altgrad_core.execution.memory import is_out_of_memory
from altgrad_core.execution.outcome import HELD
from altgrad_core.execution.recorder import RunRecorder
from altgrad_core.execution.silence import Silences
from altgrad_core.execution.tracking import TrackerPanel, ask_trackers
from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.tracker import RunInfo
from altgrad_core.locks.lock import RunHeld, run_lock
from altgrad_core.planning.identity import run_id
from altgrad_core.planning.spec import RunSpec
from altgrad_core.planning.spec_file import load_spec
from altgrad_core.quantization.format_numbers import numbers_of
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.attempts import MICRO_BATCHES
from altgrad_core.results.remote.courier import PATIENCE_SECONDS, Courier, reported
from altgrad_core.results.run_directory import RunDirectory, StatusName
from altgrad_core.training.determinism import make_deterministic
from altgrad_core.training.divergence import Diverged
from altgrad_core.training.loop import Result, Trainer

_STORE = "runs' store"  # no tracker is called so
_save_asked = Flag()
"""Set when the executor asks for a checkpoint, since the process is soon to be ended."""


def run_worker(
    path: Path, device_name: str, cache: Path, micro_batches: int = 1, store: str = ""
) -> int:
    """Run the cell in ``path``, unless another process has finished it, and return the exit code.

    micro_batches:
        how many parts each batch is cut into, whose gradients are added up.
    store:
        the URL of a store that the run is kept on as well.
    """
    directory = RunDirectory(path)
    silences = Silences(path.parent, PATIENCE_SECONDS)
    patience = silences.patience(_STORE)
    courier = Courier(store, directory, _log, patience) if store else None
    with run_lock(directory.lock), courier or nullcontext():
        spec = true_spec(directory.spec)
        if directory.has_result():
            _log("another process has finished this run")
            return 0
        directory.remove_leftovers()
        info = RunInfo(
            spec.id, spec.suite, spec.condition, spec.seed, path, spec.model_dump(mode="json")
        )
        trackers = TrackerPanel(build_trackers(spec.trackers), info, _log, Silences(path.parent))
        files = directory.digests((directory.spec,))
        fresh = {"max_steps": spec.training.max_steps, "notes": (), "files": files}
        status = directory.status().model_copy(update=fresh)
        recorder = RunRecorder(directory, trackers, status, _log)
        recorder.write_status("running", recorder.status.step)
        train = partial(_train, spec, directory, recorder, device_name, cache, micro_batches)
        name, message, code = _guarded(train, directory, recorder)
        recorder.write_status(name, recorder.status.step, message)
        if name in ("ok", "diverged"):
            directory.checkpoint.unlink(missing_ok=True)
        hung = trackers.finish(name, recorder.final)
        if trackers.said:
            recorder.add_notes(trackers.said)
    if courier is not None:
        silences.heard(_STORE, courier.answered)
    stuck = bool(hung) or (courier is not None and courier.hangs)
    sys.stdout.flush()
    sys.stderr.flush()
    if stuck:  # a thread that never returns must not keep the process
        os._exit(code)
    return code


def _guarded(
    train: Callable[[], Result], directory: RunDirectory, recorder: RunRecorder
) -> tuple[StatusName, str, int]:
    """Run, and turn every way of ending into a status, a message and an exit code."""
    try:
        result = train()
    except Diverged as end:
        recorder.event(end.step, Event("diverged", end.where, str(end)))
        recorder.status = recorder.status.model_copy(update={"step": end.step})
        return "diverged", str(end), 0
    except UserError as error:
        _log(f"error: {error}")
        return "error", str(error), 2
    except Exception as error:  # the boundary of the process: everything becomes a status
        _log_traceback(error)
        if is_out_of_memory(error):
            return "oom", str(error).splitlines()[0] if str(error) else "out of memory", 1
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            full = f"no disk space left while writing to {path_of(error, directory)}; free some and run again"
            return "error", full, 2
        return "error", f"{type(error).__name__}: {error}", 1
    recorder.status = recorder.status.model_copy(update={"step": result.step})
    return "ok", result.stopped or "", 0


def path_of(error: OSError, directory: RunDirectory) -> str:
    """The path that an OSError is about."""
    return str(error.filename or directory.path)


def _train(
    spec: RunSpec,
    directory: RunDirectory,
    recorder: RunRecorder,
    device_name: str,
    cache: Path,
    micro_batches: int,
) -> Result:
    device = resolve_device(device_name)
    make_deterministic(device)
    _log(f"{spec.condition}, seed {spec.seed}, run {spec.id}, on {device}")
    split = {MICRO_BATCHES: micro_batches} if micro_batches > 1 else {}
    if split:
        _log(f"each batch is cut into {micro_batches} parts, whose gradients are added up")
    products = check_execution(spec, device)
    recorder.runs_on(describe_environment(device, spec.distributions) | split | products)
    check_inputs(spec)
    task = prepare_task(spec.task, cache, _log)
    recorder.trackers.start()
    parts, quantized = assemble(spec, task, device)
    _log(str(quantized))
    check_inputs(spec)
    numbers = numbers_of(build_format(spec.quantization.format))
    facts = {"data": task.facts(), "quantization": quantized.as_dict(), "format": numbers}
    write_json(directory.facts, facts)
    result = Trainer(
        parts,
        spec.training,
        spec.seed,
        recorder,
        directory.checkpoint,
        save_asked=_save_asked,
        micro_batches=micro_batches,
    ).run()
    arrays = {
        f"{split}_{name}": array
        for split, evaluation in result.evaluations.items()
        for name, array in evaluation.predictions.items()
    }
    with atomic_file(directory.predictions) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return result


def prepare(path: Path, device_name: str, cache: Path, report: Path) -> int:
    """Ask the trackers of the cell in ``path`` whether they can work, and load its data.

    What is done and what was found is said in ``report``, see
    :mod:`altgrad_core.execution.preparation`.
    """
    with report.open("a", encoding="utf-8", buffering=1) as file:

        def say(**line: str) -> None:
            file.write(json.dumps(line) + "\n")

        try:
            spec = true_spec(RunDirectory(path).spec)
            device = resolve_device(device_name)
            ask_trackers(
                build_trackers(spec.trackers),
                lambda text: say(message=text),
                Silences(path.parent),
            )
            check_inputs(spec)
            prepare_task(spec.task, cache, lambda text: say(message=plain(text)))
            check_inputs(spec)
        except UserError as error:
            say(error=plain(str(error)))
            return 2
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        say(device=str(device), name=name)
    return 0


def true_spec(path: Path) -> RunSpec:
    """The spec in ``path``. Raises ``UserError`` if it is not what its id was given to."""
    spec = load_spec(path)
    if (found := run_id(spec, catalog())) != spec.id:
        raise UserError(
            f"{path} was changed after it was written: it stands under the id {spec.id}, and its settings "
            f"have the id {found}. Run the suite again, which writes it anew; to try other settings, "
            "change the suite."
        )
    return spec


def _log(line: str) -> None:
    print(plain(line), flush=True)


def _log_traceback(error: Exception) -> None:
    """The traceback, with what the exception and its causes say cut to a sane length."""
    for part in traceback.format_exception(error):
        print(plain(part), end="" if part.endswith("\n") else "\n", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the worker process."""
    parser = argparse.ArgumentParser(prog="altgrad-worker", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--micro-batches", type=int, default=1)
    parser.add_argument("--store", default="")
    parser.add_argument("--prepare", type=Path, metavar="REPORT", help="only load the data")
    options = parser.parse_args(arguments)
    safe_streams("utf-8")
    torch.set_num_threads(options.threads)
    watch_lifeline(_save_asked.set)
    try:
        o = options
        if o.prepare is not None:
            with reported(o.store, RunDirectory(o.directory), o.prepare):
                return prepare(o.directory, o.device, o.cache, o.prepare)
        if o.store:
            o.directory.mkdir(parents=True, exist_ok=True)  # another machine has none yet
        return run_worker(o.directory, o.device, o.cache, o.micro_batches, o.store)
    except RunHeld as error:
        print(error, file=sys.stderr, flush=True)
        return HELD
    except UserError as error:
        print(f"error: {plain(str(error))}", file=sys.stderr, flush=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
