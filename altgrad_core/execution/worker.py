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
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

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
    check_inputs,
    prepare_task,
    resolve_device,
)
from altgrad_core.execution.environment import describe_environment
from altgrad_core.execution.lifeline import watch_lifeline
from altgrad_core.execution.outcome import HELD
from altgrad_core.execution.tracking import TrackerPanel, ask_trackers
from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.tracker import RunInfo
from altgrad_core.planning.spec import RunSpec
from altgrad_core.planning.spec_file import load_spec
from altgrad_core.quantization.format_numbers import numbers_of
from altgrad_core.results.run_directory import (
    FINISHED,
    MetricsWriter,
    Record,
    RecordKind,
    RecordLost,
    RunDirectory,
    RunHeld,
    Status,
    StatusName,
    run_lock,
)
from altgrad_core.training.determinism import make_deterministic
from altgrad_core.training.divergence import Diverged
from altgrad_core.training.loop import Result, Trainer

_HEARTBEAT_SECONDS = 1.0


class RunRecorder:
    """The loop's sink: the run directory is the record, trackers get copies."""

    def __init__(self, directory: RunDirectory, trackers: TrackerPanel, status: Status) -> None:
        self.directory, self.trackers, self.status = directory, trackers, status
        self.started = time.time()
        self._begun = time.monotonic()
        self._seconds_before = status.seconds
        self._writer = MetricsWriter(directory)
        self.final: dict[str, float] = {}

    def record(self, step: int, kind: RecordKind, metrics: Mapping[str, float]) -> None:
        """Append a line and pass it on."""
        metrics = {plain(name): value for name, value in metrics.items()}
        self._writer.write(Record(step=step, kind=kind, metrics=metrics))
        self.trackers.log(step, metrics)
        if kind == "final":
            self.final = metrics
        if kind in ("evaluation", "final"):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            _log(f"step {step}: {shown}")

    def event(self, step: int, event: Event) -> None:
        """Append an event and pass it on. Its texts come from anywhere: they are stripped and cut here."""
        kind, layer = plain(str(event.kind)), plain(str(event.layer))
        event = replace(event, kind=kind, layer=layer, message=plain(str(event.message)))
        body = {"kind": event.kind, "layer": event.layer, "message": event.message}
        self._writer.write(Record(step=step, kind="event", event=body))
        self.trackers.event(step, event)
        _log(f"step {step}: {event.kind} ({event.layer}): {event.message}")

    def progress(self, step: int) -> None:
        """Write the heartbeat, at most once a second.

        The time that readers see is the wall clock's; when that was set back, it is written anew.
        """
        since = time.time() - (self.status.updated or 0.0)
        if not 0.0 <= since < _HEARTBEAT_SECONDS:
            self.write_status("running", step)

    def write_status(self, status: StatusName, step: int, message: str = "") -> None:
        """Replace ``status.json``. What a result was made of is on the disk before it is called one."""
        record = None
        if status in FINISHED:
            self._writer.sync()
            record = self.directory.record_digest()
        self.status = self.status.model_copy(
            update={
                "status": status,
                "step": step,
                "message": message,
                "started": self.status.started or self.started,
                "updated": time.time(),
                "seconds": self._seconds_before + time.monotonic() - self._begun,
                "record": record,
            }
        )
        self.directory.write_status(self.status)

    def add_notes(self, notes: Sequence[str]) -> None:
        """Add to the notes of ``status.json``, which stays as it is otherwise."""
        every = tuple(dict.fromkeys((*self.status.notes, *notes)))
        self.status = self.status.model_copy(update={"notes": every})
        self.directory.write_status(self.status)

    def sync(self) -> int:
        """Make the metrics durable."""
        return self._writer.sync()

    def rewind(self, position: int) -> None:
        """Forget what comes after the checkpoint. Raises ``RecordLost``."""
        try:
            self._writer.rewind(position)
        except RecordLost as lost:
            _log(f"starting again from the first step: {lost}")
            raise


def run_worker(path: Path, device_name: str, cache: Path) -> int:
    """Run the cell in ``path``, unless another process has finished it, and return the exit code."""
    directory = RunDirectory(path)
    spec = load_spec(directory.spec)
    with run_lock(directory):
        if directory.has_result():
            _log("another process has finished this run")
            return 0
        directory.remove_leftovers()
        info = RunInfo(
            spec.id, spec.suite, spec.condition, spec.seed, path, spec.model_dump(mode="json")
        )
        trackers = TrackerPanel(build_trackers(spec.trackers), info, _log)
        fresh = {"max_steps": spec.training.max_steps, "notes": ()}
        status = directory.status().model_copy(update=fresh)
        recorder = RunRecorder(directory, trackers, status)
        recorder.write_status("running", recorder.status.step)
        if directory.checkpoint.exists():
            _log("going on from the checkpoint")
        name, message, code = _guarded(spec, directory, recorder, device_name, cache)
        recorder.write_status(name, recorder.status.step, message)
        if name in ("ok", "diverged"):
            directory.checkpoint.unlink(missing_ok=True)
        hung = trackers.finish(name, recorder.final)
        if trackers.said:
            recorder.add_notes(trackers.said)
    sys.stdout.flush()
    sys.stderr.flush()
    if hung:  # a thread that never returns must not keep the process
        os._exit(code)
    return code


def _guarded(
    spec: RunSpec, directory: RunDirectory, recorder: RunRecorder, device_name: str, cache: Path
) -> tuple[StatusName, str, int]:
    """Run, and turn every way of ending into a status, a message and an exit code."""
    try:
        result = _train(spec, directory, recorder, device_name, cache)
    except Diverged as end:
        recorder.event(end.step, Event("diverged", end.where, str(end)))
        recorder.status = recorder.status.model_copy(update={"step": end.step})
        return "diverged", str(end), 0
    except UserError as error:
        _log(f"error: {error}")
        return "error", str(error), 2
    except (torch.OutOfMemoryError, MemoryError) as error:
        _log_traceback(error)
        return "oom", str(error).splitlines()[0] if str(error) else "out of memory", 1
    except OSError as error:
        _log_traceback(error)
        if error.errno == errno.ENOSPC:
            full = f"no disk space left while writing to {path_of(error, directory)}; free some and run again"
            return "error", full, 2
        return "error", f"{type(error).__name__}: {error}", 1
    except Exception as error:  # the boundary of the process: everything becomes a status
        _log_traceback(error)
        if "DefaultCPUAllocator: can't allocate memory" in str(error):
            return "oom", "out of memory", 1
        return "error", f"{type(error).__name__}: {error}", 1
    recorder.status = recorder.status.model_copy(update={"step": result.step})
    return "ok", result.stopped or "", 0


def path_of(error: OSError, directory: RunDirectory) -> str:
    """The path that an OSError is about."""
    return str(error.filename or directory.path)


def _train(
    spec: RunSpec, directory: RunDirectory, recorder: RunRecorder, device_name: str, cache: Path
) -> Result:
    device = resolve_device(device_name)
    make_deterministic(device)
    _log(f"{spec.condition}, seed {spec.seed}, run {spec.id}, on {device}")
    write_json(directory.environment, describe_environment(device, spec.distributions))
    check_inputs(spec)
    task = prepare_task(spec.task, cache, _log)
    recorder.trackers.start()
    parts, quantized = assemble(spec, task, device)
    check_inputs(spec)
    facts = {"data": task.facts(), "quantization": quantized.as_dict()}
    write_json(
        directory.facts, {**facts, "format": numbers_of(build_format(spec.quantization.format))}
    )
    trainer = Trainer(parts, spec.training, spec.seed, recorder, directory.checkpoint)
    result = trainer.run()
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
            spec = load_spec(RunDirectory(path).spec)
            device = resolve_device(device_name)
            ask_trackers(build_trackers(spec.trackers), lambda text: say(message=text))
            check_inputs(spec)
            prepare_task(spec.task, cache, lambda text: say(message=plain(text)))
            check_inputs(spec)
        except UserError as error:
            say(error=plain(str(error)))
            return 2
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        say(device=str(device), name=name)
    return 0


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
    parser.add_argument("--prepare", type=Path, metavar="REPORT", help="only load the data")
    options = parser.parse_args(arguments)
    safe_streams("utf-8")
    torch.set_num_threads(options.threads)
    watch_lifeline()
    try:
        if options.prepare is not None:
            return prepare(options.directory, options.device, options.cache, options.prepare)
        return run_worker(options.directory, options.device, options.cache)
    except RunHeld as error:
        print(error, file=sys.stderr, flush=True)
        return HELD
    except UserError as error:
        print(f"error: {plain(str(error))}", file=sys.stderr, flush=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
