"""The checks that every monitor must pass, built in or not. Needs no pytest."""

from __future__ import annotations

import copy
import io
import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.quantization.settings import Residency
from altgrad_core.testing.counters import difference, numbers
from altgrad_core.testing.draws import no_other_draws
from altgrad_core.testing.monitor_bench import CoarseFormat, Trial, fresh_run, seeded, train
from altgrad_core.testing.rules import rule

__all__ = ["CoarseFormat", "check_monitor"]

_CHANGES = (
    "a monitor changes nothing: weights, modes and random numbers are those of a run without it"
)
_RAISES = (
    "a monitor raises nothing, whatever the model, and gives metrics named family/layer/metric as "
    "floats or 0-d tensors"
)
_STATE = (
    "what a monitor remembers from step to step is in state_dict(): tensors, numbers, strings, lists and "
    "dicts, which load_state_dict() takes up, so that a run that was interrupted measures the same"
)
_WAITS = (
    "before_update and after_update leave results on the device as 0-d tensors, and the loop fetches all "
    "together; a monitor that must read its own says waits = True"
)
_DRAWS = "random numbers come from a torch.Generator of its own with a fixed seed"


def check_monitor(monitor: Monitor) -> None:
    """Raise ``AssertionError``, saying what is wrong, unless ``monitor`` is a good monitor.

    It trains a tiny quantised model for a dozen steps on the CPU and checks that the monitor

    - raises nothing, and gives every metric as ``family/layer/metric`` with a float or a 0-d
      tensor, also in a model whose weights live on the grid, in one without quantised weights, and
      in one whose weights have become NaN;
    - changes nothing: weights, training mode and random numbers are those of a run without it
      (what ``intervenes`` may change weights, but does the same each time);
    - draws nothing from ``random`` or numpy's global generator;
    - asks for old weights and rungs before the update;
    - has a state that survives a checkpoint: with one after every step it measures the same;
    - does not make the step wait for the device, unless it says ``waits = True``.

    It is called in the steps where it is due, so give it a short interval. Copies of it are run.
    """
    with rule(
        "a monitor is a subclass of altgrad_core.interfaces.Monitor, with a whole interval from 1"
    ):
        _facts(monitor)
    with rule(_DRAWS), no_other_draws("the monitor", "make a torch.Generator with a fixed seed"):
        with rule(_RAISES):
            whole = train(monitor)
        _check_changes_nothing(monitor, whole)
        with rule(_STATE):
            _check_state(monitor, whole)
        with rule(_RAISES):
            resident = train(monitor, residency="grid")
        _check_changes_nothing(monitor, resident, "grid")
        with rule(_RAISES):
            train(monitor, residency=None)
            train(monitor, poisoned=True)
        if not monitor.waits:
            with rule(_WAITS):
                _check_waits(monitor)


def _facts(monitor: Monitor) -> None:
    if not isinstance(monitor, Monitor):
        raise AssertionError(f"{monitor!r} is not a Monitor")
    interval: object = monitor.interval
    if not isinstance(interval, int):
        raise AssertionError(f"interval must be a whole number of steps, not {interval!r}")
    if interval < 1:
        raise AssertionError(f"interval must be at least 1, not {interval}")


def _check_changes_nothing(monitor: Monitor, seen: Trial, residency: Residency = "master") -> None:
    if monitor.intervenes:
        with rule("an intervention does the same in the same run"):
            _alike(train(monitor, residency=residency), seen, "differs from one time to the next")
        return
    with rule(_CHANGES):
        alone = _unwatched(residency, torch.get_default_dtype(), torch.get_num_threads())
        _alike(alone, seen, "differs from the same run without this monitor")


@cache
def _unwatched(residency: Residency, dtype: torch.dtype, threads: int) -> Trial:
    """The run without any monitor, whose numbers depend on the machine and on these alone."""
    return train(None, residency=residency)


def _alike(one: Trial, other: Trial, said: str) -> None:
    for what, value in one.kept.items():
        found = other.kept.get(what)
        if found is None or not torch.equal(value.nan_to_num(), found.nan_to_num()):
            raise AssertionError(f"the run {said}: {what}")


def _check_state(monitor: Monitor, whole: Trial) -> None:
    first = _seen(whole)
    state = first.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        loaded = torch.load(file, weights_only=True)
    except Exception as error:
        raise AssertionError(
            f"state_dict must hold tensors, numbers, strings, lists and dicts only: {error}"
        ) from error
    second = copy.deepcopy(monitor)
    with seeded():
        second.start(fresh_run())
    second.load_state_dict(loaded)
    again = second.state_dict()
    if not _equal(state, again):
        raise AssertionError(f"the state does not survive load_state_dict: {state} -> {again}")
    _check_restarts(monitor, whole)


def _check_restarts(monitor: Monitor, whole: Trial) -> None:
    """What two uninterrupted runs agree on (times they do not) must be the same with restarts."""
    twin, restarted = train(monitor), train(monitor, restarts=True)
    for what, value in whole.seen.items():
        if not _equal(value, twin.seen.get(what)):
            continue
        found = restarted.seen.get(what)
        if not _equal(value, found):
            raise AssertionError(
                f"{what} is {value}, and {found} where the run went on from a checkpoint after "
                f"each step"
            )
    if whole.timed:  # what measures time measures one process, and after a restart another
        return
    one, two = numbers(_seen(whole)), numbers(_seen(twin))
    steady = {path: value for path, value in one.items() if _equal(value, two.get(path))}
    if lost := difference(steady, numbers(_seen(restarted))):
        path, value, found = lost
        raise AssertionError(
            f"its attribute {path!r} is {value:g} at the end, and {found:g} where the run went on from a "
            f"checkpoint after each step: put it into state_dict()"
        )


def _seen(trial: Trial) -> Monitor:
    if trial.monitor is None:
        raise AssertionError("there was no monitor")
    return trial.monitor


def _check_waits(monitor: Monitor) -> None:
    for residency in ("master", "grid"):
        for where, what in train(monitor, residency=residency, watched=True).waits.items():
            raise AssertionError(
                f"{where} makes the step wait for the device, by {what}: return 0-d tensors as they are, and "
                f"use torch.where or a sum in place of an index by a mask"
            )


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_equal, first, second))
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return bool(first == second)
