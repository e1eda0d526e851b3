"""Time spent in training steps, without synchronising the device to measure it.

On the CPU the host's clock is read where a span begins and ends. On CUDA the host runs ahead of
the device, so its clock says little; an event is recorded in the stream at both ends of a span
instead, and the time between the two is read once the device has passed them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class StepClock:
    """Counts steps, samples and tokens, and the seconds between :meth:`start` and :meth:`stop`.

    What happens outside these spans (evaluation, checkpoints, logging) or inside :meth:`paused`
    (monitors) is left out.
    """

    def __init__(self, device: torch.device) -> None:
        self.steps = 0
        self.samples = 0
        self.tokens = 0
        self._spans: _Spans = _CudaSpans(device) if device.type == "cuda" else _HostSpans()
        self._earlier = 0.0
        self._running = False

    def start(self) -> None:
        """A training step begins. Raises ``RuntimeError`` when one is running already."""
        if self._running:
            raise RuntimeError("the step clock was started twice without a stop")
        self._running = True
        self._spans.begin()

    def stop(self, *, samples: int, tokens: int) -> None:
        """The step is done; it took in ``samples`` examples with ``tokens`` real tokens."""
        if not self._running:
            raise RuntimeError("the step clock was stopped without a start")
        self._spans.end()
        self._running = False
        self.steps += 1
        self.samples += samples
        self.tokens += tokens

    def abandon(self) -> None:
        """The step that is running, if any, counts for nothing."""
        self._running = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens inside, e.g. monitors in the middle of a step."""
        if not self._running:
            yield
            return
        self._spans.end()
        try:
            yield
        finally:
            self._spans.begin()

    def seconds(self) -> float:
        """Seconds in finished spans, those before a restart included. Waits for the device."""
        return self._earlier + self._spans.total()

    def state_dict(self) -> dict[str, Any]:
        """State for checkpoints: work done and seconds spent."""
        return {
            "steps": self.steps,
            "samples": self.samples,
            "tokens": self.tokens,
            "seconds": self.seconds(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the work and the time of :meth:`state_dict`."""
        self.steps, self.samples, self.tokens = state["steps"], state["samples"], state["tokens"]
        self._earlier = float(state["seconds"]) - self._spans.total()


class _HostSpans:
    """Spans on the host's clock."""

    def __init__(self) -> None:
        self._total = 0.0
        self._began = 0.0

    def begin(self) -> None:
        self._began = time.perf_counter()

    def end(self) -> None:
        self._total += time.perf_counter() - self._began

    def total(self) -> float:
        return self._total


class _CudaSpans:
    """Spans between events in the current stream of ``device``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._total = 0.0
        self._began: torch.cuda.Event | None = None
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def begin(self) -> None:
        self._began = self._mark()

    def end(self) -> None:
        assert self._began is not None
        self._pending.append((self._began, self._mark()))
        while self._pending and self._pending[0][1].query():  # type: ignore[no-untyped-call]
            self._take()

    def total(self) -> float:
        while self._pending:
            self._pending[0][1].synchronize()
            self._take()
        return self._total

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _take(self) -> None:
        """Add the oldest span, which the device has passed, so that events do not pile up."""
        begin, end = self._pending.popleft()
        self._total += begin.elapsed_time(end) / 1000.0


_Spans = _HostSpans | _CudaSpans
