"""Throughput on a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from altgrad_core.interfaces.monitor import Monitor
from altgrad_plugins.monitors.speed import throughput


@dataclass
class Clock:
    steps: int = 0
    samples: int = 0
    tokens: int = 0
    now: float = 1000.0
    reads: int = 0

    def seconds(self) -> float:
        self.reads += 1
        return self.now

    def spend(self, seconds: float) -> None:
        self.steps += 1
        self.samples += 4
        self.tokens += 30
        self.now += seconds


def readings(
    monitor: Monitor, bench: Any, seconds: dict[int, float], last: int, state: Any = None
) -> tuple[dict[int, dict[str, float]], Clock]:
    """The metrics by step when step ``s`` takes ``seconds[s]``."""
    place = bench(monitor, nn.Linear(2, 2), max_steps=last)
    if state is not None:
        monitor.load_state_dict(state)
    clock = Clock()
    place.run.clock = clock
    found = {}
    for step in sorted(seconds):
        clock.spend(seconds[step])
        metrics = place.step(step)
        if metrics:
            found[step] = metrics
    return found, clock


def test_windows_after_the_warm_up_and_their_sum(
    load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    seconds = {1: 100.0, 2: 50.0, 3: 9.0, 4: 1.0, 5: 3.0, 6: 2.0, 7: 2.0, 8: 2.0, 9: 8.0, 10: 4.0}
    monitor = load_monitor("throughput", interval=4, warmup_steps=3)
    found, clock = readings(monitor, bench, seconds, last=10)
    assert list(found) == [4, 8, 10]
    assert found[4] == {
        "throughput/all/samples_per_second": 4.0,
        "throughput/all/tokens_per_second": 30.0,
        "throughput/all/step_milliseconds": 1000.0,
        "throughput/all/cumulative_samples_per_second": 4.0,
        "throughput/all/cumulative_tokens_per_second": 30.0,
    }
    assert found[8]["throughput/all/samples_per_second"] == 16 / 9
    assert found[8]["throughput/all/step_milliseconds"] == 2250.0
    assert found[8]["throughput/all/cumulative_samples_per_second"] == 20 / 10
    assert found[10]["throughput/all/tokens_per_second"] == 60 / 12
    assert found[10]["throughput/all/cumulative_tokens_per_second"] == pytest.approx(210 / 22)
    assert clock.reads == 4  # the clock waits for the device: only the warm-up's end and windows


def test_after_a_restart_there_is_a_warm_up_again_and_the_sum_goes_on(
    load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    first = load_monitor("throughput", interval=4, warmup_steps=2)
    readings(first, bench, dict.fromkeys(range(1, 9), 1.0), last=20)
    second = load_monitor("throughput", interval=4, warmup_steps=2)
    seconds = {9: 70.0, 10: 60.0, 11: 2.0, 12: 2.0}
    found, _ = readings(second, bench, seconds, last=20, state=first.state_dict())
    assert list(found) == [12]
    assert found[12]["throughput/all/samples_per_second"] == 2.0
    cumulative = found[12]["throughput/all/cumulative_samples_per_second"]
    assert cumulative == (6 + 2) * 4 / (6.0 + 4.0)


@pytest.mark.parametrize(("last", "steps"), [(1, []), (2, [2]), (5, [5]), (8, [8])])
def test_short_runs_warm_up_for_at_most_half_of_their_steps(
    load_monitor: Callable[..., Monitor], bench: Any, last: int, steps: list[int]
) -> None:
    seconds = dict.fromkeys(range(1, last + 1), 1.0)
    found, _ = readings(load_monitor("throughput"), bench, seconds, last=last)
    assert list(found) == steps


def test_on_cuda_the_peak_of_the_memory_is_told(
    load_monitor: Callable[..., Monitor], bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def peak(device: torch.device) -> int:
        asked.append(device)
        return 12345

    monkeypatch.setattr(throughput.torch.cuda, "max_memory_allocated", peak)
    monitor = load_monitor("throughput", interval=1, warmup_steps=1)
    place = bench(monitor, nn.Linear(2, 2))
    place.run.clock = Clock()
    place.run.device = torch.device("cuda", 0)
    for step in (1, 2):
        place.run.clock.spend(1.0)
        metrics = place.step(step)
    assert metrics["throughput/all/peak_memory_bytes"] == 12345
    assert asked == [torch.device("cuda", 0)]
