"""The step clock, on the host's time and on a make-believe CUDA stream."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
import torch

from altgrad_core.training import clock as module
from altgrad_core.training.clock import StepClock

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Time:
    """A clock that tests set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Time:
    fake = Time()
    monkeypatch.setattr(module, "time", fake)
    return fake


def spend(clock: StepClock, host: Time, seconds: float, paused: float = 0.0) -> None:
    clock.start()
    host.now += seconds / 2
    with clock.paused():
        host.now += paused
    host.now += seconds / 2
    clock.stop(samples=4, tokens=30)


def test_it_counts_work_and_the_seconds_of_steps_alone(host: Time) -> None:
    clock = StepClock(CPU)
    spend(clock, host, 1.0)
    host.now += 50.0  # an evaluation
    spend(clock, host, 2.0, paused=7.0)
    assert (clock.steps, clock.samples, clock.tokens) == (2, 8, 60)
    assert clock.seconds() == pytest.approx(3.0)


def test_pausing_a_clock_that_does_not_run_does_nothing(host: Time) -> None:
    clock = StepClock(CPU)
    with clock.paused():
        host.now += 5.0
    assert clock.seconds() == 0.0


def test_an_error_in_a_pause_leaves_the_clock_running(host: Time) -> None:
    clock = StepClock(CPU)
    clock.start()
    with contextlib.suppress(ZeroDivisionError), clock.paused():
        host.now += 5.0
        raise ZeroDivisionError
    host.now += 1.0
    clock.stop(samples=1, tokens=1)
    assert clock.seconds() == pytest.approx(1.0)


def test_misuse_is_an_error(host: Time) -> None:
    clock = StepClock(CPU)
    with pytest.raises(RuntimeError, match="without a start"):
        clock.stop(samples=1, tokens=1)
    clock.start()
    with pytest.raises(RuntimeError, match="started twice"):
        clock.start()


def test_a_restarted_run_goes_on_from_its_state(host: Time) -> None:
    first = StepClock(CPU)
    spend(first, host, 3.0)
    second = StepClock(CPU)
    second.load_state_dict(first.state_dict())
    spend(second, host, 1.5)
    assert second.state_dict() == {"steps": 2, "samples": 8, "tokens": 60, "seconds": 4.5}


def test_the_real_clock_measures_real_time() -> None:
    clock = StepClock(CPU)
    clock.start()
    time.sleep(0.02)
    clock.stop(samples=1, tokens=1)
    assert 0.02 <= clock.seconds() < 2.0


class Stream:
    """A device that reaches the host's time only when it is waited for, or told to."""

    def __init__(self) -> None:
        self.host = 0.0
        self.device = 0.0
        self.waits = 0
        self.living = 0


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    stream = Stream()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            stream.living += 1

        def __del__(self) -> None:
            stream.living -= 1

        def record(self, where: object) -> None:
            assert where == f"stream of {CUDA}"
            self.at = stream.host

        def query(self) -> bool:
            return self.at <= stream.device

        def synchronize(self) -> None:
            stream.waits += 1
            stream.device = max(stream.device, self.at)

        def elapsed_time(self, end: Any) -> float:
            assert end.query(), "read before the device had passed it"
            return float(1000 * (end.at - self.at))

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    return stream


def test_on_cuda_nothing_waits_until_the_seconds_are_read(stream: Stream) -> None:
    clock = StepClock(CUDA)
    for _ in range(5):
        clock.start()
        stream.host += 0.25
        with clock.paused():
            stream.host += 1.0
        stream.host += 0.25
        clock.stop(samples=1, tokens=1)
        stream.host += 9.0
    assert stream.waits == 0
    assert clock.seconds() == pytest.approx(2.5)
    assert stream.waits > 0
    assert clock.seconds() == pytest.approx(2.5)


def test_on_cuda_events_do_not_pile_up(stream: Stream) -> None:
    clock = StepClock(CUDA)
    for _ in range(100):
        clock.start()
        stream.host += 0.5
        clock.stop(samples=1, tokens=1)
        stream.device = stream.host - 0.75  # the device runs one and a half steps behind
    assert stream.living < 10
    assert stream.waits == 0
    assert clock.seconds() == pytest.approx(50.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_real_device_the_time_of_its_work_is_counted() -> None:
    clock = StepClock(CUDA)
    x = torch.randn(4096, 4096, device=CUDA)
    torch.cuda.synchronize()
    began = time.perf_counter()
    clock.start()
    for _ in range(20):
        x = x @ x
    clock.stop(samples=1, tokens=1)
    seconds = clock.seconds()
    assert 0.2 * (time.perf_counter() - began) < seconds <= time.perf_counter() - began
