"""The built-in monitors as a whole: conformance, and planning that does not import torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.testing.monitors import check_monitor
from altgrad_plugins.monitors import altgrad_monitors
from altgrad_plugins.monitors.layers import LayerMonitor

OFFERS = {offer.name: offer for offer in altgrad_monitors() if not offer.intervenes}
NAMES = tuple(OFFERS)
OF_LAYERS = tuple(name for name in NAMES if "layers" in OFFERS[name].settings.model_fields)


def test_the_monitors_of_the_main_table_are_there() -> None:
    assert {"flips", "rank", "overflow", "amax", "gradients", "throughput"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_conformance(name: str, load_monitor: Callable[..., Monitor]) -> None:
    """Every second step has both: due steps in a row, the first and the second, and steps in between."""
    check_monitor(load_monitor(name, interval=2))


def test_conformance_of_the_rank_of_masters(load_monitor: Callable[..., Monitor]) -> None:
    check_monitor(load_monitor("rank", interval=2, of="master"))


def test_offers_are_read_without_torch() -> None:
    program = (
        "import sys, altgrad_plugins.monitors, altgrad_plugins.trackers\n"
        "altgrad_plugins.monitors.altgrad_monitors()\n"
        "altgrad_plugins.trackers.altgrad_trackers()\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'wandb', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", OF_LAYERS)
def test_only_the_layers_that_match_are_watched(
    name: str, load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    monitor = load_monitor(name, layers=("nothing", "2.*"))
    metrics = bench(monitor, two_layers()).step()
    assert isinstance(monitor, LayerMonitor)
    assert monitor.layers == ("2.weight",)
    assert {key.split("/")[1] for key in metrics} <= {"2.weight", "all"}


@pytest.mark.parametrize("name", OF_LAYERS)
def test_patterns_that_match_nothing_switch_the_monitor_off(
    name: str, load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    events = bench(load_monitor(name, layers=("encoder.*",)), two_layers()).events
    assert [event.kind for event in events] == ["monitor_failed"]
    assert "no quantised weight matches layers = ['encoder.*']" in events[0].message
    assert "named like '0.weight'; there are 2" in events[0].message


@pytest.mark.parametrize("name", OF_LAYERS)
def test_a_model_without_quantised_weights_is_nothing_to_fail_at(
    name: str, load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    metrics = bench(load_monitor(name), nn.Linear(3, 2)).step()
    assert metrics == {}


@pytest.mark.parametrize("name", OF_LAYERS)
def test_measured_at_the_first_step_the_intervals_and_the_last(
    name: str, load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    monitor = load_monitor(name, interval=4)
    bench(monitor, two_layers(), max_steps=10)
    assert [step for step in range(1, 11) if monitor.due(step)] == [1, 4, 8, 10]
