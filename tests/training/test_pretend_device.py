"""What a training step gives a GPU to do, counted where there is none; see ``pretend``.

The step waits for nothing that is not on the list, copies nothing from the host that it would have to wait for,
mixes no devices, and launches no more than its budget. Sizes are small: launches do not depend on them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend.faults import PLANTED

PRETEND = Path(__file__).parents[1] / "pretend"

BUDGET = {
    "bf16 autocast, unquantised": 222,
    "weights, master": 234,
    "+ activations": 242,
    "+ gradients": 266,
    "native float8": 294,
    "native int8": 338,
    "grid, nearest": 250,
    "grid, stochastic": 251,
    "grid, Kahan": 250,
    "manifold both, master": 242,
    "manifold both, grid, stochastic": 262,
    "grid, nearest, flips, quiet": 250,
    "grid, nearest, flips, due": 349,
    "all monitors, quiet": 192,
    "all monitors, due": 8193,
    "interventions": 421,
}
"""Launches of a step of two layers (with monitors: of one), by condition. They may only fall."""

REASONS = {
    "altgrad_core/training/loop:Trainer._book": "the loss is logged",
    "altgrad_core/training/divergence:DivergenceWatch.check": "a run that has broken ends",
    "altgrad_core/training/monitoring:to_host": "the metrics of all monitors, in one transfer",
    "altgrad_plugins/monitors/capacity/code_usage:CodeUsageMonitor.before_update": "events",
    "altgrad_plugins/monitors/curvature/curvature:CurvatureMonitor._eigenvalues": (
        "a solver on the host, for which there may be nothing to solve"
    ),
    "altgrad_plugins/monitors/curvature/curvature:_is_zero": "likewise",
    "altgrad_plugins/monitors/gradients/error:GradientErrorMonitor.before_update": "events",
    "altgrad_plugins/monitors/gradients/dead:DeadNeuronsMonitor.before_update": "events",
    "altgrad_plugins/monitors/rank/rank:RankMonitor.before_update": "events",
    "altgrad_plugins/monitors/rank/spectra:_from_grams": "a solver, which looks at its success",
    "altgrad_plugins/monitors/stability/ledgers:DeferredLedger.read": "events",
    "altgrad_plugins/monitors/stability/overflow:OverflowMonitor._events": "events",
}
"""What may be waited for in a step in which all monitors are due, and why."""
INTERVENING = {
    "altgrad_plugins/monitors/interventions/mantissa_shift:_broken_gradients": (
        "the host leaves the update out"
    ),
}
"""What may be waited for in every step, by monitors that change the run."""

KINDS = ("wait", "blocking copy", "mixed devices", "not deterministic")


pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
"""A minute of one core, and many where others use it."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By condition: the steps that were looked at, and which monitors failed."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the pretend device is compiled by g++, which is not here")
    if torch.backends.cuda.is_built():
        pytest.skip("the pretend device stands in for CUDA in a build of torch without it")
    library, root = tmp_path_factory.mktemp("pretend") / "guard.so", Path(torch.__file__).parent
    places = [f"-I{root / 'include'}", f"-L{root / 'lib'}", f"-Wl,-rpath,{root / 'lib'}"]
    options = ["-std=c++20", "-O0", "-shared", "-fPIC"]
    source = [str(PRETEND / "guard.cpp"), "-ltorch_cpu", "-lc10", "-o", str(library)]
    subprocess.run([compiler, *options, *places, *source], check=True)
    path = os.pathsep.join([str(PRETEND.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pretend", str(library)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    conditions: dict[str, Any] = json.loads(done.stdout)
    return conditions


def launched(found: Mapping[str, Any]) -> dict[str, int]:
    """The launches of each step, by condition and, where there are several, step."""
    launches = {}
    for name, condition in found.items():
        if name != "faults":
            quiet, *due = [seen["launches"] for seen in condition["steps"].values()]
            launches |= {f"{name}, quiet": quiet, f"{name}, due": due[0]} if due else {name: quiet}
    return launches


def beyond(launches: Mapping[str, int], budget: Mapping[str, int]) -> dict[str, str]:
    """The conditions whose budget is exceeded."""
    return {
        name: f"{count} launches, {budget[name]} are allowed"
        for name, count in launches.items()
        if count > budget[name]
    }


def forbidden(seen: Mapping[str, Any], permitted: Mapping[str, str]) -> list[list[Any]]:
    """The faults of a step, less the waits that are permitted."""
    return [fault for fault in seen["faults"] if fault[0] != "wait" or fault[2] not in permitted]


def test_no_step_launches_more_than_its_budget(found: dict[str, Any]) -> None:
    launches = launched(found)
    assert launches.keys() == BUDGET.keys()
    worse = beyond(launches, BUDGET)
    assert not worse, (
        f"more launches than before: {worse}. What is launched, and by which function, is in the JSON of "
        f"PYTHONPATH=tests python -m pretend LIBRARY CONDITION"
    )
    better = {name: count for name, count in launches.items() if count < BUDGET[name]}
    if better:
        warnings.warn(
            f"fewer launches than before: in BUDGET of {__name__}, write {better}", stacklevel=1
        )


def test_a_step_in_which_nothing_is_due_waits_for_nothing(found: dict[str, Any]) -> None:
    quiet = {
        name: next(iter(condition["steps"].values()))
        for name, condition in found.items()
        if name != "faults"
    }
    interventions = quiet.pop("interventions")
    assert {name: seen["faults"] for name, seen in quiet.items() if seen["faults"]} == {}
    assert forbidden(interventions, INTERVENING) == []


@pytest.mark.parametrize("name", ["all monitors", "grid, nearest, flips"])
def test_a_step_in_which_monitors_are_due_waits_for_what_is_read(
    name: str, found: dict[str, Any]
) -> None:
    _, due = found[name]["steps"].values()
    assert forbidden(due, REASONS) == []


def test_each_permitted_wait_is_there_once(found: dict[str, Any]) -> None:
    """What is waited for no longer leaves the list; what is read comes in one transfer."""
    _, due = found["all monitors"]["steps"].values()
    waits = {where: count for kind, _, where, count in due["faults"] if kind == "wait"}
    assert waits == dict.fromkeys(REASONS, 1)


def test_no_monitor_fails_on_the_device(found: dict[str, Any]) -> None:
    assert {name: c["failures"] for name, c in found.items() if c["failures"]} == {}


def test_every_planted_fault_is_found(found: dict[str, Any]) -> None:
    *planted, clean = found["faults"]["steps"].values()
    for name, seen in zip(PLANTED, planted, strict=True):
        kind = name.partition(":")[0]
        if kind == "launches":
            assert beyond({name: seen["launches"]}, {name: clean["launches"]}), name
        else:
            assert [fault[0] for fault in forbidden(seen, REASONS)] == [kind], name
    assert {name.partition(":")[0] for name in PLANTED} == {*KINDS, "launches"}
    assert forbidden(clean, {}) == []
